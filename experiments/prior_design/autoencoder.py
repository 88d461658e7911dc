"""A small convolutional autoencoder, 64 x 64 x 3 pixels to 16 x 16 x c, and its training on the bank's pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dg.core import rng
from dg.data.training_views import ViewBank, composite, move
from dg.priors.mini_net import DATA_RMS
from dg.stages.prior_batch import draw_backgrounds, psnr

BOUND = 3.0  # latents lie within it, so that the noise below cannot be outgrown
NOISE = 0.1  # added to latents in training: near codes decode alike
LR = 2e-3


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Autoencoder(nn.Module):
    """`encode` gives latents of mean 0 and of the scale that the preconditioning expects, once `measure` ran."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1), _Residual(width), nn.Conv2d(width, 2 * width, 4, 2, 1),
            _Residual(2 * width), _Residual(2 * width), nn.GroupNorm(8, 2 * width), nn.SiLU(),
            nn.Conv2d(2 * width, channels, 1),
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 3, padding=1), _Residual(2 * width), _Residual(2 * width),
            nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(2 * width, width, 3, padding=1),
            _Residual(width), nn.GroupNorm(8, width), nn.SiLU(),
            nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))

    def code(self, x: Tensor) -> Tensor:
        return BOUND * torch.tanh(self.down(x) / BOUND)

    def forward(self, x: Float[Tensor, "B 3 h w"], noise: Float[Tensor, "B c g g"]) -> Tensor:
        return self.up(self.code(x) + NOISE * noise)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B c g g"]:
        return (self.code(x).float() - self.mean) * self.scale

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "B c g g"]) -> Float[Tensor, "B 3 h w"]:
        return self.up(z / self.scale + self.mean).float()

    @torch.no_grad()
    def measure(self, pictures: Float[Tensor, "B 3 h w"]) -> None:
        code = self.code(pictures).float()
        self.mean.copy_(code.mean((0, 2, 3), keepdim=True))
        self.scale.copy_(DATA_RMS / code.std((0, 2, 3), keepdim=True).clamp_min(1e-3))


def pictures(bank: ViewBank, n: int, seed: int, step: int) -> Float[Tensor, "n 3 h w"]:
    generator = rng.generator(seed, "autoencoder", step)
    targets = bank.batch(n, 1, generator).targets
    return 2 * composite(targets, move(draw_backgrounds(n, generator), bank.device)) - 1


class Training:
    """`warm` compiles; `run` trains for a given time, the rate falling along a half cosine.

    Args:
        batch: pictures per step.
    """

    def __init__(self, channels: int, bank: ViewBank, batch: int, seed: int, compile: bool) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.key(seed, "autoencoder weights"))
            self.net = Autoencoder(channels).to(bank.device)
        self.bank, self.batch, self.seed = bank, batch, seed
        self.call: Callable[..., Tensor] = torch.compile(self.net, dynamic=False) if compile else self.net

    def _loss(self, step: int) -> Tensor:
        x, device = pictures(self.bank, self.batch, self.seed, step), self.bank.device
        side = x.shape[-1] // 4
        shape = (len(x), self.net.mean.shape[1], side, side)
        own = torch.Generator(device).manual_seed(rng.key(self.seed, "autoencoder noise", step))
        noise = torch.randn(shape, generator=own, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            made = self.call(x, noise)
        return F.mse_loss(made.float(), x)

    def warm(self, steps: int) -> None:
        for step in range(steps):
            self._loss(step).backward()
        for p in self.net.parameters():
            p.grad = None

    def run(self, seconds: float) -> float:
        """Returns the reconstruction's PSNR in dB on pictures of the bank."""
        optimizer = torch.optim.Adam(self.net.parameters(), LR, betas=(0.9, 0.98))
        start, step, part = time.monotonic(), 0, 0.0
        while part < 1:
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = LR * min(1.0, step / 50) * max(0.01, 0.5 * (1 + math.cos(math.pi * part)))
            loss = self._loss(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if self.bank.device.type == "cuda" and step % 4 == 0:
                torch.cuda.synchronize(self.bank.device)
            part = (time.monotonic() - start) / seconds
        self.net.eval().requires_grad_(False)
        x = pictures(self.bank, 4 * self.batch, self.seed, 2**31)
        self.net.measure(x)
        return psnr(self.net.decode(self.net.encode(x)).clamp(-1, 1), x)
