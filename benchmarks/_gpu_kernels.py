"""How many launches a part is, and how long its kernels run: what is left of its time is waiting for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import _gpu_geometry, _gpu_networks
from benchmarks._gpu_floor import Bench
from dg.priors.zero123 import Zero123


def counted(function: Callable[[], Any], device: str) -> dict[str, float]:
    """Launches and milliseconds of kernels in one call, after three others; on a CPU torch's operators instead."""
    cuda = device.startswith("cuda")
    for _ in range(3):
        function()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        function()
        if cuda:
            torch.cuda.synchronize()
    events = [e for e in seen.events() if e.device_type == (DeviceType.CUDA if cuda else DeviceType.CPU)]
    spent = sum(e.self_device_time_total if cuda else e.self_cpu_time_total for e in events)
    return {"launches": len(events), "kernels_ms": round(spent / 1e3, 4)}


def kernels(bench: Bench, prior: Zero123, n: int, size: int) -> None:
    """Of the parts of a step: in bench.summary["kernels"]."""
    found = bench.summary["kernels"] = {}
    given, seen = _gpu_networks.unet_inputs(prior, 1), _gpu_networks.picture(prior).requires_grad_()
    for way in _gpu_networks.ways(bench, ("eager", "channels-last graph", _gpu_networks.FUSED)):
        denoise = _gpu_networks.run_as(way, prior._denoise, prior.unet, prior.device)
        encode = _gpu_networks.run_as(way, prior._encode, prior.vae, prior.device)
        slope = torch.randn_like(encode(seen))
        with torch.no_grad():
            found[f"UNet, guidance: {way}"] = counted(lambda f=denoise: f(*given), bench.device)
        both = lambda f=encode, slope=slope: torch.autograd.grad(f(seen), seen, slope)  # noqa: E731
        found[f"VAE encode, both ways: {way}"] = counted(both, bench.device)
    way, step = _gpu_geometry.splat_step(bench.device, n, size)
    found[f"splats, both ways: {way}"] = counted(step, bench.device)
    _, optimizer = _gpu_geometry.state(n, bench.device)
    found["Adam: fused"] = counted(optimizer.step, bench.device)
    for name, values in found.items():
        print(f"{name:40} {values['launches']:6} launches, kernels {values['kernels_ms']:.3f} ms", flush=True)
    bench.save()
