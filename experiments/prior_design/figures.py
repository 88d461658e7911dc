"""What a trained variant is worth: x_0 at fixed noise levels, samples from pure noise, and the cost of a prediction."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dg.core import rng
from dg.core.diffusion import ddim_step, eps_from_x0
from dg.data.training_views import Batch, ViewBank, composite
from dg.stages.prior_batch import Inputs, network_inputs, psnr
from experiments.prior_design.levels import RATIOS, alpha_bar_at, step_at

TARGETS = 4  # per reference
CHUNK = 32  # references at once
STEPS, LAST = 20, 10  # of DDIM, as in dg.priors.sampling


class Space(Protocol):
    """What is noised: pictures, or an autoencoder's latents of them."""

    def diffused(self, pictures: Tensor) -> Tensor: ...

    def decoded(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Held:
    """Figures on held-out objects, by level where there are several."""

    x0_psnr: list[float]
    without_picture: list[float]
    copy_psnr: float
    blank_psnr: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.x0_psnr)


def _chunks(batch: Batch) -> list[Batch]:
    n = len(batch.reference)
    parts = []
    for start in range(0, n, CHUNK):
        r = slice(start, min(start + CHUNK, n))
        k = slice(TARGETS * r.start, TARGETS * r.stop)
        parts.append(Batch(batch.reference[r], batch.targets[k], batch.reference_cameras[r], batch.cameras[k]))
    return parts


def _noise(like: Tensor, name: str, step: int) -> Tensor:
    return torch.randn(like.shape, generator=rng.generator(0, name, step)).to(like.device)


@torch.no_grad()
def held_out(
    net: nn.Module, space: Space, bank: ViewBank, alpha_bar: Float[Tensor, T], references: int, level: float = 1.0
) -> Held:
    """x_0's PSNR in dB at `levels.RATIOS` (times `level`: `Variant.level`), white and black backgrounds in turn."""
    batch = bank.batch(references, TARGETS, rng.generator(0, "held-out"), own=False)
    found: dict[str, list[list[float]]] = {"given": [], "withheld": [], "other": []}
    for i, part in enumerate(_chunks(batch)):
        n = len(part.targets)
        background = (torch.arange(n, device=bank.device) % 2).float()[:, None].expand(n, 3)
        for name, flag in (("given", 0.0), ("withheld", 1.0)):
            dropped = torch.full((len(part.reference),), flag, device=bank.device)
            inputs = network_inputs(part, background, dropped, net.config)
            kept, z = net.encode(*inputs.reference), space.diffused(inputs.x0)
            scores = []
            for ratio in RATIOS:
                a2 = alpha_bar_at(ratio * level)
                x_t = a2**0.5 * z + (1 - a2) ** 0.5 * _noise(z, "held-out noise", i)
                answer = _x0(net, x_t, step_at(alpha_bar, ratio * level), a2, inputs, kept)
                scores.append(n * psnr(space.decoded(answer), inputs.x0))
            found[name].append(scores)
        copied = 2 * composite(part.reference.repeat_interleave(TARGETS, 0), background) - 1
        blank = (2 * background - 1)[:, :, None, None].expand_as(copied)
        found["other"].append([n * psnr(copied, inputs.x0), n * psnr(blank, inputs.x0)])
    total = references * TARGETS
    mean = {k: [round(sum(column) / total, 4) for column in zip(*v, strict=True)] for k, v in found.items()}
    return Held(mean["given"], mean["withheld"], *mean["other"])


def _x0(net: nn.Module, x_t: Tensor, t: float, a2: float, inputs: Inputs, kept: object) -> Tensor:
    n = len(x_t)
    step, level = torch.full((n,), t, device=x_t.device), torch.full((n,), a2, device=x_t.device)
    return net(x_t, step, level, inputs.rays, inputs.vector, kept)[1]


@torch.no_grad()
def sample(
    net: nn.Module, noise: Tensor, alpha_bar: Float[Tensor, T], inputs: Inputs, clamp: bool, steps: int = STEPS
) -> Float[Tensor, "B C h w"]:
    """DDIM from pure noise, as `dg.priors.sampling.sample` for a network without a prior around it."""
    kept, z = net.encode(*inputs.reference), noise
    times = torch.linspace(len(alpha_bar) - 1, LAST, steps).long().tolist()
    levels = [float(alpha_bar[t]) for t in times] + [1.0]
    for t, a2, after in zip(times, levels, levels[1:], strict=False):
        x0 = _x0(net, z, float(t), a2, inputs, kept)
        here = torch.tensor(a2, device=z.device)
        eps = eps_from_x0(z, x0.clamp(-1, 1) if clamp else x0, here)
        z = ddim_step(z, eps, here, torch.tensor(after, device=z.device))
    return z


@dataclass(frozen=True)
class Sampled:
    """Samples against the truth, on white: PSNR in dB, and overlap of the silhouettes."""

    one_psnr: float
    mean_psnr: float
    one_iou: float
    mean_iou: float


def silhouette_overlap(a: Bool[Tensor, "B h w"], b: Bool[Tensor, "B h w"]) -> float:
    from dg.eval.images import silhouette_iou

    return float(silhouette_iou(a[..., None].float(), b[..., None].float()).mean())


@torch.no_grad()
def samples(
    net: nn.Module,
    space: Space,
    bank: ViewBank,
    alpha_bar: Float[Tensor, T],
    references: int,
    draws: int = 8,
    steps: int = STEPS,
) -> tuple[Sampled, Float[Tensor, "H W 3"]]:
    """`draws` samples of 4 views of each of `references` objects; the sheet shows truth, one sample, mean.

    A silhouette is where answers on white and on black, from one noise, agree.
    """
    batch = bank.batch(references, TARGETS, rng.generator(1, "held-out"), own=False)
    white, black, truth, alpha = [], [], [], []
    for i, part in enumerate(_chunks(batch)):
        dropped = torch.zeros(len(part.reference), device=bank.device)
        for value, made in ((0.0, black), (1.0, white)):
            background = torch.full((len(part.targets), 3), value, device=bank.device)
            inputs = network_inputs(part, background, dropped, net.config)
            shape = space.diffused(inputs.x0)
            drawn = [_noise(shape, f"held-out samples {i}", k) for k in range(draws)]
            pixels = shape.shape[1] == 3  # as the prior clamps its x_0
            made.append(torch.stack([space.decoded(sample(net, z, alpha_bar, inputs, pixels, steps)) for z in drawn]))
        truth.append(inputs.x0)
        alpha.append(part.targets[:, 3] > 0.5)
    seen, x0, shape = torch.cat(white, 1), torch.cat(truth), torch.cat(alpha)
    opaque = 1 - (seen - torch.cat(black, 1)).mean(2) / 2
    figures = Sampled(
        round(statistics.fmean(psnr(one, x0) for one in seen), 4),
        round(psnr(seen.mean(0), x0), 4),
        round(statistics.fmean(silhouette_overlap(one > 0.5, shape) for one in opaque), 4),
        round(silhouette_overlap(opaque.mean(0) > 0.5, shape), 4),
    )
    rows = [torch.cat([*x[: 4 * TARGETS]], -1) for x in (x0, seen[0], seen.mean(0))]
    return figures, (torch.cat(rows, 1).permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def milliseconds(
    net: nn.Module, channels: int, side: int, device: torch.device, batch: int = 8, runs: int = 20, warm: int = 3
) -> float:
    """Median time of one prediction of `batch` targets of one encoded reference, in single precision, not compiled."""
    net = copy.deepcopy(net).to(device)
    config = net.config
    n = config.grid**2
    picture = torch.zeros(1, 4, config.image_size, config.image_size, device=device)
    kept = net.encode(picture, torch.zeros(1, n, 6, device=device), torch.zeros(1, config.reference_dim, device=device))
    x = torch.zeros(batch, channels, side, side, device=device)
    t, level = torch.full((batch,), 500.0, device=device), torch.full((batch,), 0.2, device=device)
    rest = torch.zeros(batch, n, 6, device=device), torch.zeros(batch, config.target_dim, device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    for _ in range(runs + warm):
        wait()
        start = time.perf_counter()
        net(x, t, level, *rest, kept)
        wait()
        seconds.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(seconds[warm:]), 3)
