"""All variants in turn on one device, one record each."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from dg.data import held_out as shelf
from dg.data.pool import ObjectPool
from dg.data.training_views import ViewBank, make_bank
from dg.meshraster.protocol import MeshRasterizer
from experiments.prior_design import figures, probe, records
from experiments.prior_design.levels import RATIOS
from experiments.prior_design.nets import LatentNet
from experiments.prior_design.variants import VARIANTS, Variant

SAMPLED = 32  # references with 4 targets each; on a CPU 1
VIEWS = 7  # targets per instance of the bank
SHARE, WARP = 0.65, 0.05  # the library's share of the pictures, and the deformation, as for the shipped weights


def chosen(options: argparse.Namespace) -> list[Variant]:
    """This shard's variants.

    Raises:
        ValueError: there is no such variant.
    """
    names = options.variants or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise ValueError(f"No variant {name!r}; there are: {', '.join(VARIANTS)}.")
    i, n = options.shard
    return [VARIANTS[name] for name in names[i - 1 :: n]]


def rasterizer(device: torch.device) -> MeshRasterizer:
    if device.type == "cuda":
        from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer

        return NvdiffrastMeshRasterizer(device)
    from dg.meshraster.cpu import CpuMeshRasterizer

    return CpuMeshRasterizer()


def banks(options: argparse.Namespace, device: torch.device) -> tuple[ViewBank, ViewBank]:
    """The one to train on, and the held-out objects': 16 of the library (if given) and 16 invented ones."""
    cuda, raster, start = device.type == "cuda", rasterizer(device), time.monotonic()
    held = options.held_out or (256 if cuda else 1)
    library = None if options.library is None else str(options.library)
    known = [] if library is None else shelf.from_library(library)
    things = [*known, *shelf.invented()]
    groups = [g for g in ((0, len(known), 0.5), (len(known), len(things), 0.5)) if g[1] > g[0]]
    test = ViewBank(
        ObjectPool.of(things, device), groups, raster, instances=held, targets=figures.TARGETS,
        chunk=min(held, 128), seed=12,
    )  # fmt: skip
    test.refresh()
    print(f"{len(things)} held-out objects after {time.monotonic() - start:.0f} s", flush=True)
    instances = options.instances or (24576 if cuda else 16)
    bank = make_bank(
        device, library=library, procedural=options.procedural, rasterizer=raster, instances=instances, targets=VIEWS,
        chunk=min(instances, 512), seed=options.seed, library_share=SHARE, warp=WARP,
    )  # fmt: skip
    print(f"{len(bank.pool)} objects after {time.monotonic() - start:.0f} s", flush=True)
    bank.refresh()
    print(f"{instances} instances after {time.monotonic() - start:.0f} s", flush=True)
    return bank, test


def run_all(options: argparse.Namespace) -> int:
    """Exit status 1 if a variant failed, 2 if the arguments are wrong, 3 if the device can't be used any more."""
    try:
        variants = chosen(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = options.out / "records.jsonl"
    ready = records.done(records.read(path))
    left = [v for v in variants if v.name not in ready]
    print(f"{len(left)} variants to do: {' '.join(v.name for v in left)}", flush=True)
    if not left:
        return 0
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        torch._dynamo.config.automatic_dynamic_shapes = False
    bank, test = banks(options, device)
    failures = 0
    for i, variant in enumerate(left):
        if options.deadline is not None and time.time() > options.deadline:
            print(f"deadline: not started: {' '.join(v.name for v in left[i:])}", flush=True)
            break
        record = run_one(variant, options, bank, test)
        records.append(path, record)
        failures += record["failure"] is not None
        probe.release()
        try:
            probe.wait(device)
        except RuntimeError as error:
            print(f"error: the device can't be used any more ({error}); start again to go on", file=sys.stderr)
            return 3
    return 1 if failures else 0


def run_one(variant: Variant, options: argparse.Namespace, bank: ViewBank, test: ViewBank) -> dict:
    """The variant's record, also of a failure."""
    import traceback

    def say(text: str) -> None:
        print(f"{variant.name:11s} {text}", flush=True)

    record, start = about(variant, options, bank.device), time.monotonic()
    try:
        record |= measure(variant, options, bank, test, say) | {"failure": None}
        levels = " / ".join(f"{v:.2f}" for v in record["x0_psnr"])
        say(f"x_0 {record['x0_mean']:.3f} dB ({levels}), {time.monotonic() - start:.0f} s in all")
    except Exception as error:
        traceback.print_exc()
        record |= {"failure": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        say(f"failed: {record['failure']}")
    return record | {"total_s": round(time.monotonic() - start, 1)}


def about(variant: Variant, options: argparse.Namespace, device: torch.device) -> dict:
    from benchmarks import _record

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _record._cpu()
    shown = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    config = {"net": variant.make.__name__, **asdict(variant.config)}
    config |= {"shift": variant.shift, "epsilon_loss": variant.epsilon_loss, "group": variant.group}
    return {
        "variant": variant.name, "about": variant.about, "config": config | {"latent": variant.latent},
        "command": shlex.join(["python", "-m", "experiments.prior_design", *shown]),
        "revision": options.revision or _record.revision(), "seed": options.seed, "device": name,
        "torch": torch.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "budget_s": options.seconds, "targets": options.targets,
    }  # fmt: skip


def measure(variant: Variant, options: argparse.Namespace, bank: ViewBank, test: ViewBank, say) -> dict:
    device, cuda = bank.device, bank.device.type == "cuda"
    budget = probe.Budget(
        options.seconds, options.references, options.targets, options.seed, cuda and not options.no_compile,
        warm=5 if cuda else 1,
    )  # fmt: skip
    stage, trained, changed = probe.with_fallbacks(variant, budget, bank, say)
    net = stage.averaged()
    held = figures.held_out(net, stage, test, stage.alpha_bar, test.instances, variant.level)
    found = {
        **changed, **asdict(trained), "levels": list(RATIOS), "x0_mean": round(held.mean, 4), **asdict(held),
        "parameters": probe.parameters(net),
    }  # fmt: skip
    channels, side = (LatentNet.channels, net.config.grid) if variant.latent else (3, net.config.image_size)
    found["ms_gpu"] = figures.milliseconds(net, channels, side, device) if cuda else None
    found["ms_cpu"] = None
    if not options.no_cpu_time:
        runs, warm = (5, 1) if cuda else (1, 0)
        found["ms_cpu"] = figures.milliseconds(net, channels, side, torch.device("cpu"), runs=runs, warm=warm)
    if options.sample:
        sampled, sheet = figures.samples(
            net, stage, test, stage.alpha_bar, SAMPLED if cuda else 1, draws=8 if cuda else 1, steps=20 if cuda else 2
        )
        found["samples"] = asdict(sampled)
        from dg.io.images import write_png

        write_png(options.out / f"{variant.name}.png", sheet)
        say(f"samples {sampled}")
    return found
