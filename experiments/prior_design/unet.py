"""A convolutional UNet with `MiniNet`'s interface: the reference is concatenated, cameras are an embedded vector.

Residual blocks with adaptive group normalisation and attention at the two coarsest levels, as in Dhariwal & Nichol
(2021). Convolutions keep their weights as matrices, so that the training's optimiser treats them as it treats a
transformer's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dg.priors.mini_net import REFERENCE_CHANNELS, KeysValues, MiniConfig, fourier, preconditioning
from experiments.prior_design.nets import repeated

CHANNELS = (64, 128, 192, 256)  # at 64, 32, 16 and 8 pixels
ATTENTION_FROM = 2  # the first level with attention
HEAD = 64


class Conv(nn.Module):
    """Odd square kernel, same size; weights [out, in k k]."""

    def __init__(self, inputs: int, outputs: int, k: int = 3, zero: bool = False) -> None:
        super().__init__()
        self.shape = (outputs, inputs, k, k)
        bound = 0.0 if zero else 1 / math.sqrt(inputs * k * k)
        self.weight = nn.Parameter(torch.empty(outputs, inputs * k * k).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.view(self.shape), self.bias, padding=self.shape[-1] // 2)


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, vector: int, attention: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(16, inputs), nn.GroupNorm(16, outputs)
        self.conv1, self.conv2 = Conv(inputs, outputs), Conv(outputs, outputs, zero=True)
        self.modulation = nn.Linear(vector, 2 * outputs)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.skip = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, c: Float[Tensor, "B M"]) -> Tensor:
        scale, shift = self.modulation(c)[:, :, None, None].chunk(2, 1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.attention(self.skip(x) + h)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(16, channels), channels // HEAD
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(b, h * w, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.out(y).transpose(1, 2).reshape(b, c, h, w)


class UNet(nn.Module):
    """See the module. Of `config` it takes the size of pictures and vectors; widths are its own."""

    def __init__(self, config: MiniConfig, channels: tuple[int, ...] = CHANNELS, per_level: int = 2) -> None:
        super().__init__()
        self.config, self.per_level, self.levels = config, per_level, len(channels)
        vector = 2 * config.modulation
        told = 64 + config.target_dim + config.reference_dim
        self.vector = nn.Sequential(
            nn.Linear(told, 2 * vector), nn.SiLU(), nn.Linear(2 * vector, vector), nn.SiLU()
        )  # fmt: skip
        self.first = Conv(3 + REFERENCE_CHANNELS, channels[0])
        blocks, kept, width = [], [channels[0]], channels[0]
        for level, w in enumerate(channels):
            for _ in range(per_level):
                blocks.append(Residual(width, w, vector, level >= ATTENTION_FROM))
                width = w
                kept.append(w)
        blocks.append(Residual(width, width, vector, True))
        for level in reversed(range(len(channels))):
            for _ in range(per_level):
                blocks.append(Residual(width + kept.pop(), channels[level], vector, level >= ATTENTION_FROM))
                width = channels[level]
        self.blocks = nn.ModuleList(blocks)  # in the order of use: down, middle, up
        self.norm = nn.GroupNorm(16, width + channels[0])
        self.head = Conv(width + channels[0], 3, zero=True)

    def encode(self, picture: Tensor, rays: Tensor, vector: Tensor) -> KeysValues:
        return [(picture, vector)]

    def forward(
        self, x_t: Tensor, t: Tensor, alpha_bar_t: Tensor, rays: Tensor, vector: Tensor, reference: KeysValues
    ) -> tuple[Tensor, Tensor]:
        c_skip, c_out, c_in = preconditioning(alpha_bar_t)
        picture, vector0 = (repeated(x, len(x_t)) for x in reference[0])
        c = self.vector(torch.cat([fourier(t), vector, vector0], -1))
        x = torch.cat([x_t * c_in, picture], 1).contiguous(memory_format=torch.channels_last)
        x = self.first(x)
        kept, blocks = [x], iter(self.blocks)
        for level in range(self.levels):
            if level:
                x = F.avg_pool2d(x, 2)
            for _ in range(self.per_level):
                x = next(blocks)(x, c)
                kept.append(x)
        x = next(blocks)(x, c)
        for level in reversed(range(self.levels)):
            for _ in range(self.per_level):
                x = next(blocks)(torch.cat([x, kept.pop()], 1), c)
            if level:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = torch.cat([x, kept.pop()], 1)
        out = self.head(F.silu(self.norm(x))).float().contiguous()
        return out, c_skip * x_t + c_out * out
