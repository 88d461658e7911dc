"""The embedded prior's network by other means than eager float32, in pairs: how many times faster, and how far off.

python -m benchmarks.prior_backends [--runs 21] [--batches 1 2 4] [--ways onednn bf16 ...]

Each round runs eager and then every other way, so that a busy machine hits them alike; `ratio` is the median over the
rounds of eager's seconds over the other's. Which of them the product offers: docs/prior_speed.md.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._record import Timing, record
from benchmarks.prior import asked
from dg.priors.mini_openvino import Flat, OpenVinoNet, flat_inputs
from dg.priors.zero123_mini import Zero123Mini

Inputs = tuple[Tensor, ...]
Way = Callable[[Inputs], Tensor]  # flat inputs to x_0
WAYS = ("onednn", "compile", "bf16", "int8", "openvino_f32", "openvino_bf16")


class Packed(nn.Module):
    """A linear layer with its weight in oneDNN's own order, and a GELU in the same pass: operators private to torch."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()), linear.bias
        self.after = ("gelu", [], "tanh") if gelu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *self.after)


def packed(flat: Flat) -> Flat:
    flat = copy.deepcopy(flat)
    for block in flat.net.blocks:
        block.qkv, block.out = Packed(block.qkv), Packed(block.out)
        block.mlp = nn.Sequential(Packed(block.mlp[0], gelu=True), Packed(block.mlp[2]))
    return flat


def inputs(prior: Zero123Mini, batch: int) -> Inputs:
    z, t, cond = asked(prior, batch)
    return flat_inputs(z, t.float(), prior.alpha_bar[t], cond.extra.rays, cond.extra.vector, cond.extra.reference)


def made(way: str, flat: Flat) -> Way:
    """Raises ImportError where the way's package is absent, whatever torch.compile raises without a C++ compiler."""
    if way == "onednn":
        other = packed(flat)
        return lambda given: other(*given)
    if way == "compile":
        compiled = torch.compile(flat, dynamic=False)
        return lambda given: compiled(*given)
    if way == "bf16":

        def halved(given: Inputs) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return flat(*given)

        return halved
    if way == "int8":
        other = torch.ao.quantization.quantize_dynamic(copy.deepcopy(flat), {nn.Linear}, dtype=torch.qint8)
        return lambda given: other(*given)
    network = OpenVinoNet(flat.net, way.removeprefix("openvino_"))
    return lambda given: network(*given[:5], list(zip(given[5::2], given[6::2], strict=True)))


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(flat: Flat, given: Inputs, ways: Sequence[str], runs: int) -> None:
    truth, batch = flat(*given), len(given[0])
    built: dict[str, Way] = {"eager": lambda x: flat(*x)}
    first: dict[str, float] = {"eager": 0.0}
    for way in ways:
        start = time.perf_counter()
        built[way] = made(way, flat)
        built[way](given)
        first[way] = time.perf_counter() - start  # tracing, compiling, the first call
    rounds: dict[str, list[float]] = {way: [] for way in built}
    for n in range(runs + 3):
        for way, work in built.items():
            seconds = timed(lambda work=work: work(given))
            if n >= 3:
                rounds[way].append(seconds)
    for way, seconds in rounds.items():
        ratio = statistics.median(a / b for a, b in zip(rounds["eager"], seconds, strict=True))
        off = float((built[way](given) - truth).square().mean().sqrt())
        timing = Timing(statistics.median(seconds), min(seconds), max(seconds), None, runs)
        values = {"ratio": round(ratio, 3), "first_call_s": round(first[way], 2), "x0_rms_off": off}
        record("prior_backends", {"prior": "zero123_mini", "way": way, "batch": batch}, timing, **values)
        print(
            f"batch {batch} {way:14s} {1e3 * timing.median_s:7.1f} ms (min {1e3 * timing.min_s:.1f})  {ratio:.2f}x"
            f"  first call {first[way]:.1f} s  x_0 off by {off:.1e} rms",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    options = parser.parse_args(arguments)
    ways = options.ways
    if importlib.util.find_spec("openvino") is None and any(way.startswith("openvino") for way in ways):
        print("openvino is not installed (pip install openvino): left out")
        ways = [way for way in ways if not way.startswith("openvino")]
    prior = Zero123Mini()
    flat = Flat(prior.net).eval()
    with torch.no_grad():
        for batch in options.batches:
            compare(flat, inputs(prior, batch), ways, options.runs)


if __name__ == "__main__":
    main()
