"""Other transformers with `MiniNet`'s interface: `encode` reads the reference, `forward` denoises its targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dg.priors.mini_net import (
    RAY_CHANNELS,
    REFERENCE_CHANNELS,
    Block,
    KeysValues,
    MiniConfig,
    MiniNet,
    fourier,
    patchify,
    preconditioning,
    rotate,
    spread,
    unpatchify,
)

POSE = slice(0, 4)  # of the target's vector: Zero123's four numbers
DROPPED, TARGET_DROPPED = 6, 16  # where the two vectors say that the picture was withheld


def repeated(x: Tensor, batch: int) -> Tensor:
    """Each reference's tensor once for every target of its group."""
    return x[:, None].expand(len(x), batch // len(x), *x.shape[1:]).reshape(batch, *x.shape[1:])


class VariedNet(MiniNet):
    """`MiniNet`'s forward in pieces that the variants replace."""

    target_patch: int

    def __init__(self, config: MiniConfig) -> None:
        super().__init__(config)
        self.target_patch = config.patch

    def target_tokens(self, x: Tensor, rays: Tensor, reference: KeysValues) -> Float[Tensor, "B N c"]:
        return torch.cat([patchify(x, self.target_patch), rays], -1)

    def modulating(self, t: Tensor, vector: Tensor, reference: KeysValues) -> Float[Tensor, "B M"]:
        return self.vector_target(torch.cat([fourier(t), vector], -1))

    def layers(self, x: Tensor, c: Tensor, reference: KeysValues) -> Float[Tensor, "B N W"]:
        for block, context in zip(self.blocks, reference, strict=True):
            x, _ = block(x, c, self.cos, self.sin, spread(context, len(x)))
        return x

    def forward(
        self, x_t: Tensor, t: Tensor, alpha_bar_t: Tensor, rays: Tensor, vector: Tensor, reference: KeysValues
    ) -> tuple[Tensor, Tensor]:
        c_skip, c_out, c_in = preconditioning(alpha_bar_t)
        x = self._embedded(self.embed_target, self.target_tokens(x_t * c_in, rays, reference))
        c = self.modulating(t, vector, reference)
        x = self.layers(x, c, reference)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        out = unpatchify(self.head(self.norm(x) * (1 + scale) + shift), self.target_patch).float()
        return out, c_skip * x_t + c_out * out


class ConcatNet(VariedNet):
    """The reference's patches only as more channels of the target's tokens; attention among the target's tokens."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__(config)
        del self.embed_reference, self.vector_reference
        area = config.patch**2
        self.embed_target = nn.Linear((3 + REFERENCE_CHANNELS) * area + 2 * RAY_CHANNELS, config.width)
        self.vector_target = self._vector(64 + config.target_dim + config.reference_dim)

    def encode(self, picture: Tensor, rays: Tensor, vector: Tensor) -> KeysValues:
        return [(torch.cat([patchify(picture, self.config.patch), rays], -1), vector)]

    def target_tokens(self, x: Tensor, rays: Tensor, reference: KeysValues) -> Tensor:
        return torch.cat([super().target_tokens(x, rays, reference), repeated(reference[0][0], len(x))], -1)

    def modulating(self, t: Tensor, vector: Tensor, reference: KeysValues) -> Tensor:
        return self.vector_target(torch.cat([fourier(t), vector, repeated(reference[0][1], len(vector))], -1))

    def layers(self, x: Tensor, c: Tensor, reference: KeysValues) -> Tensor:
        for block in self.blocks:
            x, _ = block(x, c, self.cos, self.sin, None)
        return x


class PoseNet(MiniNet):
    """Knows of the cameras only Zero123's four numbers: rays, absolute elevations and lens are blanked out."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__(config)
        reference, target = torch.zeros(config.reference_dim), torch.zeros(config.target_dim)
        reference[DROPPED] = 1
        target[POSE] = 1
        target[TARGET_DROPPED:] = 1  # and the background
        self.register_buffer("known_of_reference", reference, persistent=False)
        self.register_buffer("known_of_target", target, persistent=False)

    def encode(self, picture: Tensor, rays: Tensor, vector: Tensor) -> KeysValues:
        return super().encode(picture, torch.zeros_like(rays), vector * self.known_of_reference)

    def forward(
        self, x_t: Tensor, t: Tensor, alpha_bar_t: Tensor, rays: Tensor, vector: Tensor, reference: KeysValues
    ) -> tuple[Tensor, Tensor]:
        return super().forward(x_t, t, alpha_bar_t, torch.zeros_like(rays), vector * self.known_of_target, reference)


class ViewsNet(VariedNet):
    """`group` targets of one reference denoised together: their tokens attend to each other's."""

    group = 4

    def layers(self, x: Tensor, c: Tensor, reference: KeysValues) -> Tensor:
        sets = len(x) // self.group
        for block, context in zip(self.blocks, reference, strict=True):
            x = together(block, x, c, self.cos, self.sin, spread(context, sets), self.group)
        return x


def together(
    block: Block, x: Tensor, c: Tensor, cos: Tensor, sin: Tensor, context: tuple[Tensor, Tensor], group: int
) -> Float[Tensor, "B N W"]:
    """A block whose attention sees the tokens of `group` consecutive pictures at once; `context` has B / group entries.

    With group = 1 it is `Block.forward`.
    """
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(c)[:, None].chunk(6, -1)
    b, n, w = x.shape
    heads, dim, sets = block.heads, w // block.heads, b // group
    h = block.norm1(x) * (1 + scale1) + shift1
    q, k, v = block.qkv(h).reshape(b, n, 3, heads, dim).permute(2, 0, 3, 1, 4)
    q = rotate(block.norm_q(q), cos, sin).to(v.dtype)
    k = rotate(block.norm_k(k), cos, sin).to(v.dtype)

    def joined(y: Tensor) -> Tensor:
        return y.reshape(sets, group, heads, n, dim).transpose(1, 2).reshape(sets, heads, group * n, dim)

    k, v = (torch.cat([joined(own), theirs.to(own.dtype)], 2) for own, theirs in zip((k, v), context, strict=True))
    h = F.scaled_dot_product_attention(joined(q), k, v)
    h = h.reshape(sets, heads, group, n, dim).permute(0, 2, 3, 1, 4).reshape(b, n, w)
    x = x + gate1 * block.out(h)
    h = block.norm2(x) * (1 + scale2) + shift2
    return x + gate2 * block.mlp(h)


class LatentNet(VariedNet):
    """Denoises latents [channels, grid, grid], one token each; the reference is read in pixels as ever."""

    channels = 8

    def __init__(self, config: MiniConfig) -> None:
        super().__init__(config)
        self.target_patch = 1
        self.embed_target = nn.Linear(self.channels + RAY_CHANNELS, config.width)
        self.head = nn.Linear(config.width, self.channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
