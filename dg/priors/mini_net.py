"""The network of `zero123_mini`: one transformer that reads the reference once and denoises any number of views of it.

Reference and target run through the same blocks. The reference's tokens see only each other, so that their keys and
values in every layer depend on nothing but the reference: they are computed once and kept (`encode`). The target's
tokens attend to themselves and to those (`forward`). Both carry the Plücker coordinates of their patches' rays, which
is what lets attention find correspondences; time, pose and background modulate the blocks (adaLN, Peebles & Xie 2023).

The output is preconditioned (Karras et al. 2022, written for a variance-preserving schedule): with x_t = a x_0 + s n,
the data's root mean square d and q^2 = a^2 d^2 + s^2, it is x_0 = (a d^2 / q^2) x_t + (d s / q) F(x_t / q).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

DATA_RMS = 0.7  # of pictures in [-1, 1]; only the preconditioning depends on it
REFERENCE_CHANNELS = 4  # colour composited on mid-grey, and alpha
RAY_CHANNELS = 6

KeysValues = list[tuple[Tensor, Tensor]]  # per layer, each [R heads tokens head_dim]


@dataclass(frozen=True)
class MiniConfig:
    """The network's shape; stored in the checkpoint's metadata."""

    image_size: int = 64
    patch: int = 4
    width: int = 320
    depth: int = 8
    heads: int = 5
    modulation: int = 128  # width of the vector that modulates the blocks
    reference_dim: int = 7  # length of the reference's vector (`mini_inputs.reference_vector`)
    target_dim: int = 20  # length of the target's vector (`mini_inputs.target_vector`)

    @property
    def grid(self) -> int:
        return self.image_size // self.patch

    def as_metadata(self) -> dict[str, str]:
        return {k: str(v) for k, v in asdict(self).items()}


def fourier(t: Float[Tensor, B], dim: int = 64) -> Float[Tensor, "B dim"]:
    """Sinusoids of the step t in [0, 1000), with wavelengths from 2 pi to 2 pi 10^4 (Vaswani et al. 2017)."""
    rate = torch.exp(torch.arange(dim // 2, device=t.device, dtype=torch.float32) * (-math.log(1e4) / (dim // 2)))
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], -1)


def rotary(grid: int, head_dim: int) -> tuple[Float[Tensor, "N h"], Float[Tensor, "N h"]]:
    """Cosines and sines of axial rotary embeddings (Su et al. 2021): half of a head for rows, half for columns."""
    quarter = head_dim // 4
    rate = 30.0 ** -(torch.arange(quarter, dtype=torch.float32) / quarter)
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angle = torch.cat([p.reshape(-1, 1).float() * rate for p in (row, column)], -1)
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "B H N D"], cos: Float[Tensor, "N h"], sin: Float[Tensor, "N h"]
) -> Float[Tensor, "B H N D"]:
    a, b = x.chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def patchify(x: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N c"]:
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def unpatchify(tokens: Float[Tensor, "B N c"], patch: int) -> Float[Tensor, "B C H W"]:
    b, n, c = tokens.shape
    side, channels = math.isqrt(n), c // (patch * patch)
    x = tokens.reshape(b, side, side, channels, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, channels, side * patch, side * patch)


class Block(nn.Module):
    """Attention and MLP, each gated and modulated by the vector `c`."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = nn.RMSNorm(width // config.heads, eps=1e-6)
        self.norm_k = nn.RMSNorm(width // config.heads, eps=1e-6)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(config.modulation, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Tensor, c: Tensor, cos: Tensor, sin: Tensor, context: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens [B N W] and the modulating vector [B M] to tokens and their own keys and values."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)
        b, n, w = x.shape
        h = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).reshape(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q = rotate(self.norm_q(q), cos, sin).to(v.dtype)
        k = rotate(self.norm_k(k), cos, sin).to(v.dtype)
        own = (k, v)
        if context is not None:
            k, v = (torch.cat([mine, theirs.to(mine.dtype)], 2) for mine, theirs in zip(own, context, strict=True))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, w)
        x = x + gate1 * self.out(h)
        h = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.mlp(h), own


class MiniNet(nn.Module):
    """See the module. All pictures are in [-1, 1] and square with `config.image_size` pixels."""

    def __init__(self, config: MiniConfig = MiniConfig()) -> None:
        super().__init__()
        self.config = config
        width, area = config.width, config.patch**2
        self.embed_reference = nn.Linear(REFERENCE_CHANNELS * area + RAY_CHANNELS, width)
        self.embed_target = nn.Linear(3 * area + RAY_CHANNELS, width)
        self.position = nn.Parameter(torch.randn(config.grid**2, width) * 0.02)
        self.vector_reference = self._vector(config.reference_dim)
        self.vector_target = self._vector(64 + config.target_dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(config.modulation, 2 * width)
        self.head = nn.Linear(width, 3 * area)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        cos, sin = rotary(config.grid, width // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _vector(self, dim: int) -> nn.Sequential:
        hidden = 2 * self.config.modulation
        return nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, self.config.modulation), nn.SiLU())

    def _embedded(self, embed: nn.Linear, tokens: Float[Tensor, "B N c"]) -> Float[Tensor, "B N W"]:
        x = embed(tokens)
        return x + self.position.to(x.dtype)  # under autocast the tokens stay in half precision

    def encode(
        self, picture: Float[Tensor, "R 4 H W"], rays: Float[Tensor, "R N 6"], vector: Float[Tensor, "R d"]
    ) -> KeysValues:
        """The reference's keys and values, layer by layer."""
        tokens = torch.cat([patchify(picture, self.config.patch), rays], -1)
        x, c = self._embedded(self.embed_reference, tokens), self.vector_reference(vector)
        kept: KeysValues = []
        for block in self.blocks:
            x, own = block(x, c, self.cos, self.sin, None)
            kept.append(own)
        return kept

    def forward(
        self,
        x_t: Float[Tensor, "B 3 H W"],
        t: Float[Tensor, B],
        alpha_bar_t: Float[Tensor, B],
        rays: Float[Tensor, "B N 6"],
        vector: Float[Tensor, "B d"],
        reference: KeysValues,
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"]]:
        """Returns F and x_0 (see the module); `reference` has B entries, or B / K for groups of K targets each."""
        c_skip, c_out, c_in = preconditioning(alpha_bar_t)
        tokens = torch.cat([patchify(x_t * c_in, self.config.patch), rays], -1)
        x = self._embedded(self.embed_target, tokens)
        c = self.vector_target(torch.cat([fourier(t), vector], -1))
        for block, context in zip(self.blocks, reference, strict=True):
            x, _ = block(x, c, self.cos, self.sin, spread(context, len(x)))
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        out = unpatchify(self.head(self.norm(x) * (1 + scale) + shift), self.config.patch).float()
        return out, c_skip * x_t + c_out * out


def spread(context: tuple[Tensor, Tensor], batch: int) -> tuple[Tensor, Tensor]:
    """Repeats each reference's keys and values for the group of targets that belongs to it."""
    n = len(context[0])
    if n == batch:
        return context
    k, v = (x[:, None].expand(n, batch // n, *x.shape[1:]).reshape(batch, *x.shape[1:]) for x in context)
    return k, v


def preconditioning(alpha_bar_t: Float[Tensor, B]) -> tuple[Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in), each [B 1 1 1], float32."""
    a2 = alpha_bar_t.float().reshape(-1, 1, 1, 1)
    s2 = 1 - a2
    total = a2 * DATA_RMS**2 + s2
    return DATA_RMS**2 * a2.sqrt() / total, DATA_RMS * s2.sqrt() / total.sqrt(), total.rsqrt()
