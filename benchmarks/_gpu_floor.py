"""What the device could do: its rates, measured, and from them the least time that a part's work can take."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._record import Timing, measure, record, surroundings

SPLAT_FLOATS = 14  # of one Gaussian with colours of degree 0: mean 3, quaternion 4, scales 3, opacity 1, colour 3
PIXEL_FLOATS = 5  # of a render: colour 3, alpha 1, depth 1

BEST_MS = {  # medians of the best that was measured on an H100 80GB HBM3 (torch 2.11) before this benchmark was written
    ("UNet, guidance", "eager"): 40.0,
    ("UNet, guidance", "graph"): 8.0,
    ("UNet, guidance", "channels-last graph"): 5.4,
    ("UNet, guidance", "compiled"): 3.7,
    ("VAE encode, both ways", "eager"): 24.0,
    ("VAE encode, both ways", "graph"): 6.4,
    ("VAE encode, both ways", "channels-last graph"): 6.4,
    ("VAE encode, both ways", "compiled"): 4.8,
    ("Adam", "fused"): 0.42,
    ("splats, both ways", "gsplat"): 3.0,  # 20,000 Gaussians, 512 pixels; kernels 0.5 to 1.1
    ("step of stage 1", "in the job"): 15.6,  # 7.8 s in 500 steps, 2.2 s in 50
    ("step of stage 2", "in the job"): 44.0,
}


@dataclass(frozen=True)
class Rates:
    matrix_tflops: float  # square products, half precision on a GPU and float32 on a CPU
    bandwidth_gb_s: float  # of a copy within the device, bytes read and written


@dataclass(frozen=True)
class Work:
    """The least that has to be done: operations of matrix products, bytes that have to be read or written once."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, n: float) -> Work:
        return Work(n * self.flops, n * self.bytes)

    def floor_ms(self, rates: Rates) -> float:
        """Operations over the measured matrix rate or bytes over the measured bandwidth, whichever takes longer."""
        return 1e3 * max(self.flops / rates.matrix_tflops / 1e12, self.bytes / rates.bandwidth_gb_s / 1e9)


def measure_rates(device: str, *, side: int, copied: int, runs: int) -> Rates:
    """Args:
    side: of the square matrices.
    copied: bytes of the copy's source.
    """
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    a, b = torch.randn(2, side, side, device=device, dtype=dtype).unbind(0)
    product = torch.empty_like(a)
    matrix = measure(lambda: torch.matmul(a, b, out=product), runs=runs, device=device)
    source = torch.zeros(copied // 4, device=device)
    target = torch.empty_like(source)
    copy = measure(lambda: target.copy_(source), runs=runs, device=device)
    return Rates(2 * side**3 / matrix.median_s / 1e12, 2 * copied / copy.median_s / 1e9)


def operations(function: Callable[[], Any]) -> int:
    """Multiplications and additions of the matrix products, convolutions and attentions in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def weight_bytes(module: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def tensor_bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def splatting(n: int, pixels: int) -> Work:
    """Both directions: Gaussians read twice and their gradients written, pictures written, their gradients read."""
    return Work(bytes=4.0 * (3 * SPLAT_FLOATS * n + 3 * PIXEL_FLOATS * pixels))


def adam(n: int) -> Work:
    """Parameter, gradient and two moments read; parameter and moments written."""
    return Work(bytes=4.0 * 7 * SPLAT_FLOATS * n)


def densification(before: int, after: int) -> Work:
    """Parameters and two moments read of all that were there, written of all that are there afterwards."""
    return Work(bytes=4.0 * 3 * SPLAT_FLOATS * (before + after))


@dataclass
class Bench:
    """Where it runs, how often, and what has come out so far. Every line is written when it is there."""

    device: str
    runs: int
    rates: Rates
    results: Path
    tiny: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    def part(
        self, part: str, way: str, function: Callable[[], Any], work: Work | None, *, runs: int = 0, **case: Any
    ) -> dict[str, Any]:
        """Measures a function that is called again and again."""
        timing = measure(function, runs=runs or self.runs, warmup=3, device=self.device)
        return self.add(part, way, timing, work, **case)

    def add(
        self, part: str, way: str, timing: Timing, work: Work | None, *, floor_ms: float | None = None, **case: Any
    ) -> dict[str, Any]:
        """Keeps a measured time.

        Args:
            work: None for work of the host, about which the device's rates say nothing.
            floor_ms: the least time, where it is another than `work`'s.
        """
        values: dict[str, Any] = {"floor_ms": None, "ratio_to_floor": None}
        if work is not None:
            floor = work.floor_ms(self.rates) if floor_ms is None else floor_ms
            values = {
                "gflop": round(work.flops / 1e9, 4),
                "mbytes": round(work.bytes / 1e6, 3),
                "floor_ms": round(floor, 5),
                "ratio_to_floor": round(1e3 * timing.median_s / floor, 2) if floor else None,
            }
        usual = {"gaussians": 20_000, "size": 512, "views": 1}  # the sizes that the best figures are of
        best = BEST_MS.get((part, way)) if all(case.get(k, v) == v for k, v in usual.items()) else None
        if best and "H100" in surroundings(self.device)["device"]:
            values |= {"best_ms": best, "ratio_to_best": round(1e3 * timing.median_s / best, 2)}
        line = record(
            "gpu", {"part": part, "way": way, **case}, timing, device=self.device, results=self.results, **values
        )
        self.lines.append(line)
        print(row(line), flush=True)
        self.save()
        return line

    def save(self) -> None:
        """The whole report as one file, gpu.json, beside the history in gpu.jsonl."""
        own = {"part", "way", "median_s", "min_s", "max_s", "runs", "floor_ms", "ratio_to_floor", "gflop", "mbytes"}
        common = surroundings(self.device)
        parts = [{k: v for k, v in line.items() if k in own or k not in (*common, "benchmark")} for line in self.lines]
        report = {**common, "tiny": self.tiny, "rates": asdict(self.rates), **self.summary, "parts": parts}
        self.results.mkdir(parents=True, exist_ok=True)
        (self.results / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")


def row(line: dict[str, Any]) -> str:
    """One line of the table."""
    known = {"part", "way", "median_s", "floor_ms", "ratio_to_floor"}
    case = " ".join(f"{k}={line[k]}" for k in ("gaussians", "size", "views", "objects") if k in line and k not in known)
    floor, ratio = line["floor_ms"], line["ratio_to_floor"]
    against = "host" if floor is None else f"floor {floor:9.4f}" + ("" if ratio is None else f"  x {ratio:.1f}")
    return f"{line['part']:24} {line['way']:20} {1e3 * line['median_s']:10.3f} ms  {against:30} {case}"
