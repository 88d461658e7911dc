"""From rendered pictures to what the network of `zero123_mini` reads, and how well it answers on held-out objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core import camera, rng
from dg.data.training_views import Batch, ViewBank, composite, move
from dg.priors import mini_inputs
from dg.priors.mini_net import MiniConfig, MiniNet
from dg.types import Cameras


@dataclass(frozen=True)
class Inputs:
    """One batch as the network reads it: R references, B = R K targets."""

    reference: tuple[Tensor, Tensor, Tensor]  # picture, rays, vector
    rays: Float[Tensor, "B N 6"]
    vector: Float[Tensor, "B d"]
    x0: Float[Tensor, "B 3 h w"]


def network_inputs(
    batch: Batch, background: Float[Tensor, "B 3"], dropped: Float[Tensor, R], config: MiniConfig
) -> Inputs:
    group = len(batch.targets) // len(batch.reference)
    rgb, alpha = batch.reference[:, :3], batch.reference[:, 3:]
    keep = (1 - dropped)[:, None, None, None]
    picture = torch.cat([2 * rgb - alpha, alpha], 1) * keep  # premultiplied: alpha (2 c - 1)
    azimuth0 = camera.spherical(batch.reference_cameras)[1]
    each = lambda x: x.repeat_interleave(group, 0)  # noqa: E731
    beside = Cameras(
        each(batch.reference_cameras.c2w), each(batch.reference_cameras.K), batch.cameras.width, batch.cameras.height
    )
    return Inputs(
        (
            picture,
            mini_inputs.rays(batch.reference_cameras, azimuth0, config.grid),
            mini_inputs.reference_vector(batch.reference_cameras, dropped),
        ),
        mini_inputs.rays(batch.cameras, each(azimuth0), config.grid),
        mini_inputs.target_vector(batch.cameras, beside, background, each(dropped)),
        2 * composite(batch.targets, background) - 1,
    )


def draw_backgrounds(n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """White, black, and now and then any colour."""
    choice = torch.rand(n, 1, generator=generator)
    plain = (choice < 0.45).float().expand(n, 3)
    return torch.where(choice > 0.88, torch.rand(n, 3, generator=generator), plain)


def spoiled(
    x0: Float[Tensor, "B 3 h w"], group: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some pictures moved, scaled, faded into another view, tinted and blurred, as unfinished objects look.

    Returns:
        The pictures, and which of them were spoiled [B] (1 or 0).
    """
    n, side = len(x0), x0.shape[-1]
    u = lambda *shape: move(torch.rand(*shape, generator=generator), x0.device)  # noqa: E731
    chosen = (u(n) < share).float()
    other = x0.reshape(-1, group, *x0.shape[1:]).roll(1, 1).reshape_as(x0)
    fade = (u(n) * (u(n) < 0.5))[:, None, None, None]
    y = x0 + fade * (other - x0)
    theta = torch.zeros(n, 2, 3, device=x0.device)
    theta[:, 0, 0], theta[:, 1, 1] = 1 + (u(n) - 0.5) * 0.3, 1 + (u(n) - 0.5) * 0.3
    theta[:, :, 2] = (u(n, 2) - 0.5) * 0.15
    y = F.grid_sample(
        y, F.affine_grid(theta, list(x0.shape), align_corners=False), padding_mode="border", align_corners=False
    )
    levels = [y, *(F.interpolate(F.avg_pool2d(y, k), (side, side), mode="bilinear") for k in (2, 4, 8))]
    level = torch.bucketize(u(n), move(torch.tensor([0.3, 0.6, 0.85]), x0.device))
    y = torch.stack(levels, 1)[torch.arange(n, device=x0.device), level]
    y = (y * (1 + (u(n, 1, 1, 1) - 0.5) * 0.4) + (u(n, 3, 1, 1) - 0.5) * 0.4 * (u(n, 1, 1, 1) < 0.5)).clamp(-1, 1)
    mask = chosen[:, None, None, None]
    return x0 * (1 - mask) + y * mask, chosen


def psnr(a: Float[Tensor, "B 3 h w"], b: Float[Tensor, "B 3 h w"]) -> float:
    """Mean over pictures in [-1, 1] of each one's PSNR in dB."""
    return float((-10 * ((a - b) / 2).square().mean((1, 2, 3)).clamp_min(1e-6).log10()).mean())


@torch.no_grad()
def held_out_psnr(
    net: MiniNet, bank: ViewBank, alpha_bar: Float[Tensor, T], times: list[int], *, samples: int = 128, seed: int = 0
) -> dict[str, list[float]]:
    """x_0's PSNR in dB by t, over `samples` references with 4 targets each, white and black backgrounds in turn.

    Returns:
        "model" and "without_picture" (the same with the picture withheld), one value per t; "copy": the reference
        itself taken as the answer; "blank": the background.
    """
    device = bank.device
    batch = bank.batch(samples, 4, rng.generator(seed, "held-out"), own=False)
    n = len(batch.targets)
    background = (torch.arange(n, device=device) % 2).float()[:, None].expand(n, 3)
    noise = torch.randn(n, 3, bank.size, bank.size, generator=rng.generator(seed, "held-out noise")).to(device)
    scores: dict[str, list[float]] = {"model": [], "without_picture": []}
    for name, flag in (("model", 0.0), ("without_picture", 1.0)):
        inputs = network_inputs(batch, background, torch.full((samples,), flag, device=device), net.config)
        kept = net.encode(*inputs.reference)
        for t in times:
            step = torch.full((n,), t, device=device)
            a2 = alpha_bar.to(device)[step][:, None, None, None]
            x_t = a2.sqrt() * inputs.x0 + (1 - a2).sqrt() * noise
            _, x0 = net(x_t, step.float(), a2.flatten(), inputs.rays, inputs.vector, kept)
            scores[name].append(psnr(x0.clamp(-1, 1), inputs.x0))
    copied = 2 * composite(batch.reference.repeat_interleave(4, 0), background) - 1
    scores["copy"] = [psnr(copied, inputs.x0)]
    scores["blank"] = [psnr((2 * background - 1)[:, :, None, None].expand_as(copied), inputs.x0)]
    return scores
