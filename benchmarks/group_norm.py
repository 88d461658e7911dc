"""Group norm with SiLU at the sizes of Zero123's networks: torch's in both layouts against `dg.priors.group_norm`.

python -m benchmarks.group_norm [--budget SECONDS] [--tiny]

Microseconds of one call on the device, within a CUDA graph of several calls: a forward pass, and for the autoencoder
also both ways. The sums at the end weigh each size by how often the networks have it. Then the same sums of ours under
other rules of `dg.priors.norm_launch.Rule`, until the budget is spent: each rule compiles kernels of its own. `--tiny`
checks the script on a CPU, where torch alone is timed unless TRITON_INTERPRET=1.
"""

from __future__ import annotations

import dg  # noqa: F401  # isort: skip  says how OpenMP's threads wait, which torch reads when it is loaded

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from dg.priors.group_norm import GroupNorm
from dg.priors.norm_launch import RULE, Rule, plan

CALLS, REPLAYS, GROUPS, EPS = 10, 15, 32, 1e-6


@dataclass(frozen=True)
class Case:
    """A size, and how many norms of it the UNet (batch 2), the encoder and the decoder (one 256-pixel picture) have."""

    samples: int
    side: int
    channels: int
    unet: int = 0
    encoder: int = 0
    decoder: int = 0

    def __str__(self) -> str:
        return f"{self.samples} x {self.side}x{self.side} x {self.channels}"


CASES = (
    *(Case(2, 32, c, unet=n) for c, n in ((320, 13), (640, 2), (960, 1))),
    *(Case(2, 16, c, unet=n) for c, n in ((320, 1), (640, 11), (960, 1), (1280, 1), (1920, 1))),
    *(Case(2, 8, c, unet=n) for c, n in ((640, 1), (1280, 11), (1920, 1), (2560, 2))),
    *(Case(2, 4, c, unet=n) for c, n in ((1280, 12), (2560, 3))),
    Case(1, 256, 128, encoder=4, decoder=6),
    Case(1, 256, 256, decoder=1),
    Case(1, 128, 128, encoder=1),
    Case(1, 128, 256, encoder=3, decoder=5),
    Case(1, 128, 512, decoder=1),
    Case(1, 64, 256, encoder=1),
    Case(1, 64, 512, encoder=3, decoder=6),
    Case(1, 32, 512, encoder=10, decoder=11),
)
TINY = (Case(2, 4, 64, unet=3), Case(1, 8, 32, encoder=2, decoder=1))
RULES = {
    "split from 8k": replace(RULE, whole_up_to=8192),
    "split from 16k": replace(RULE, whole_up_to=16384),
    "whole up to 64k": replace(RULE, whole_up_to=65536),
    "8 warps": replace(RULE, warps=8),
    "512 programs": replace(RULE, programs=512),
    "2048 programs": replace(RULE, programs=2048),
    "columns 128, rows 32": replace(RULE, columns=128, rows=32, warps=8),
    "columns 128, rows 64": replace(RULE, columns=128, warps=8),
    "columns 64": replace(RULE, columns=64),
    "columns 64, 512 programs": replace(RULE, columns=64, programs=512),
    "whole block 8192": replace(RULE, whole_block=8192),
    "whole block 8192, 16 warps": replace(RULE, whole_block=8192, whole_warps=16),
    "whole block 2048, 4 warps": replace(RULE, whole_block=2048, whole_warps=4),
    "whole block 16384, 16 warps": replace(RULE, whole_block=16384, whole_warps=16),
}


def torch_usual(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, weight, bias, EPS))


def torch_last(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """With the copy that the next convolution makes."""
    return torch_usual(x, weight, bias).contiguous(memory_format=torch.channels_last)


def ours(rule: Rule) -> Callable[..., Tensor]:
    return lambda x, weight, bias: GroupNorm.apply(x, None, weight, bias, GROUPS, EPS, True, rule)


class Clock:
    """Times functions of one size. `both` is the forward and the backward pass."""

    def __init__(self, case: Case, device: str) -> None:
        self.cuda = device == "cuda"
        like = {"device": device, "dtype": torch.float16 if self.cuda else torch.float32}
        self.usual = torch.randn(case.samples, case.channels, case.side, case.side, **like)
        self.last = self.usual.to(memory_format=torch.channels_last)
        self.slopes = {False: torch.randn_like(self.usual), True: torch.randn_like(self.last)}
        self.weights = torch.randn(case.channels, **like), torch.randn(case.channels, **like)

    def microseconds(self, function: Callable[..., Tensor], last: bool, both: bool) -> float:
        x = (self.last if last else self.usual).detach().requires_grad_(both)

        def call() -> None:
            with torch.set_grad_enabled(both):
                out = function(x, *self.weights)
                if both:
                    torch.autograd.grad(out, x, self.slopes[last])

        return self._device(call) if self.cuda else self._host(call)

    def _host(self, call: Callable[[], None]) -> float:
        call()
        start = time.perf_counter()
        call()
        return 1e6 * (time.perf_counter() - start)

    def _device(self, call: Callable[[], None]) -> float:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS):
                call()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(REPLAYS + 1)]
        graph.replay()
        for i, mark in enumerate(marks):
            mark.record()
            if i < REPLAYS:
                graph.replay()
        torch.cuda.synchronize()
        return 1e3 * statistics.median(a.elapsed_time(b) for a, b in pairwise(marks)) / CALLS


def passes(case: Case) -> tuple[bool, ...]:
    return (False, True) if case.encoder else (False,)


def sums(cases: Sequence[Case], times: dict[tuple[Case, bool], float]) -> str:
    unet = sum(c.unet * times[c, False] for c in cases)
    encoder = sum(c.encoder * times[c, True] for c in cases if c.encoder)
    decoder = sum(c.decoder * times[c, False] for c in cases)
    return f"UNet {unet:8.1f}   encoder both ways {encoder:8.1f}   decoder {decoder:8.1f} us"


def compare(cases: Sequence[Case], clocks: dict[Case, Clock], with_ours: bool) -> None:
    ways = {"torch, usual order": (torch_usual, False), "torch, channels-last": (torch_last, True)}
    if with_ours:
        ways["ours"] = ours(RULE), True
    print(f"{'':22}{'':9}" + "".join(f"{way:>22}" for way in ways), flush=True)
    times: dict[str, dict[tuple[Case, bool], float]] = {way: {} for way in ways}
    for case in cases:
        for both in passes(case):
            for way, (function, last) in ways.items():
                times[way][case, both] = clocks[case].microseconds(function, last, both)
            how = "whole" if plan(case.samples, case.side**2, case.channels, GROUPS).whole else "split"
            found = "".join(f"{times[way][case, both]:22.2f}" for way in ways)
            print(f"{case!s:22}{'both' if both else 'forward':9}{found}  {how}", flush=True)
    for way, found in times.items():
        print(f"{way:28} {sums(cases, found)}", flush=True)


def sweep(cases: Sequence[Case], clocks: dict[Case, Clock], deadline: float) -> None:
    """Where a rule changes nothing for a size, that size is not measured again."""
    known: dict[tuple[Case, bool], dict[object, float]] = {}
    for name, rule in {"as it is": RULE, **RULES}.items():
        times, begun = {}, time.perf_counter()
        for case in cases:
            for both in passes(case):
                how = plan(case.samples, case.side**2, case.channels, GROUPS, rule)
                seen = known.setdefault((case, both), {})
                if how not in seen:
                    if time.perf_counter() > deadline:
                        print(f"{name}: no time left", flush=True)
                        return
                    seen[how] = clocks[case].microseconds(ours(rule), True, both)
                times[case, both] = seen[how]
        print(f"{name:28} {sums(cases, times)}   ({time.perf_counter() - begun:.1f} s)", flush=True)
    for (case, both), seen in known.items():
        best = min(seen, key=seen.get)
        print(f"best for {case!s:22}{'both' if both else 'forward':9}{seen[best]:8.2f} us  {best}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=35.0, help="seconds for all of it")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    begun = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.tiny:
        print("group_norm: there is no CUDA device here; --tiny checks the script", flush=True)
        return
    cases = TINY if args.tiny else CASES
    clocks = {case: Clock(case, device) for case in cases}
    with_ours = device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    compare(cases, clocks, with_ours)
    print(f"{time.perf_counter() - begun:.1f} s with compiling", flush=True)
    if with_ours:
        sweep(cases, clocks, begun + args.budget)
    print(f"{time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
