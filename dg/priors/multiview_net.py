"""The UNet of MVDream (Shi et al. 2023) and ImageDream (Wang and Shi 2023): Stable Diffusion's, on several views.

Three things differ from a plain UNet: self-attention joins the views of a sample, a camera embedding is added to that
of time, and ImageDream's text attention has keys and values for image tokens besides. Tensors have the names of the
public checkpoints; sizes are read off their shapes, so the same code serves every width.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dg.priors.ldm_parts import Shapes
from dg.priors.multiview_blocks import GROUPS, Downsample, JointTransformer, Resampler, ResBlock, Upsample

HEAD = 64  # channels of each head in the public networks


@dataclass(frozen=True)
class ResamplerSize:
    inputs: int  # width of CLIP's hidden states
    width: int
    inner: int  # of all heads together
    count: int  # tokens that come out
    depth: int


@dataclass(frozen=True)
class NetSize:
    """Attributes:
    channels, attends: for each resolution, finest first: width, and whether its blocks have attention.
    blocks: residual blocks of each resolution on the way down.
    depth: transformer blocks of each attention.
    image: of ImageDream's image tokens; None is MVDream.
    """

    inputs: int
    outputs: int
    channels: tuple[int, ...]
    attends: tuple[bool, ...]
    blocks: int
    depth: int
    context: int
    camera: int
    head: int = HEAD
    image: ResamplerSize | None = None


PUBLIC = NetSize(4, 4, (320, 640, 1280, 1280), (True, True, True, False), 2, 1, 1024, 16)
PUBLIC_IMAGE = ResamplerSize(1280, 1024, 12 * HEAD, 16, 4)


def net_size(shapes: Shapes, prefix: str, head: int = HEAD) -> NetSize:
    """The sizes of the network whose tensors are `prefix`...

    Raises:
        ValueError: not a multi-view UNet; names what it lacks.
    """
    first = shapes[f"{prefix}input_blocks.0.0.weight"]
    levels: list[list[int]] = [[]]
    for block in range(1, shapes.count(rf"{re.escape(prefix)}input_blocks\.(\d+)\.")):
        if f"{prefix}input_blocks.{block}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(block)
    name = lambda block, rest: f"{prefix}input_blocks.{block}.{rest}"  # noqa: E731
    channels = tuple(shapes[name(blocks[0], "0.out_layers.3.weight")][0] for blocks in levels if blocks)
    attends = tuple(name(blocks[0], "1.proj_in.weight") in shapes for blocks in levels if blocks)
    middle = f"{prefix}middle_block.1."
    context = shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"][1]
    if len(shapes[f"{middle}proj_in.weight"]) != 2:
        raise ValueError(
            f"{shapes.path}: a multi-view network of Stable Diffusion 1.5, whose heads differ; take that of 2.1 "
            "(sd-v2.1-base-4view.pt)"
        )
    wrong = [c for c in channels if c % head or c % GROUPS]
    if wrong or len({len(blocks) for blocks in levels}) != 1:
        raise ValueError(
            f"{shapes.path}: widths {channels} are no multiples of {head} and {GROUPS}: not of this family"
        )
    return NetSize(
        inputs=first[1],
        outputs=shapes[f"{prefix}out.2.weight"][0],
        channels=channels,
        attends=attends,
        blocks=len(levels[0]),
        depth=shapes.count(rf"{re.escape(middle)}transformer_blocks\.(\d+)\."),
        context=context,
        camera=shapes[f"{prefix}camera_embed.0.weight"][1],
        head=head,
        image=_image_size(shapes, f"{prefix}image_embed."),
    )


def _image_size(shapes: Shapes, prefix: str) -> ResamplerSize | None:
    if f"{prefix}latents" not in shapes:
        return None
    _, count, width = shapes[f"{prefix}latents"]
    depth = shapes.count(rf"{re.escape(prefix)}layers\.(\d+)\.")
    inner = shapes[f"{prefix}layers.0.0.to_q.weight"][0]
    return ResamplerSize(shapes[f"{prefix}proj_in.weight"][1], width, inner, count, depth)


def time_tokens(t: Int[Tensor, N], width: int) -> Float[Tensor, "N W"]:
    """Cosines, then sines, of t times width / 2 frequencies from 1 down to (almost) 1 / 10000."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def _embedding(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


class MultiViewUNet(nn.Module):
    """Noise of N = samples * frames pictures; the frames of a sample follow each other."""

    def __init__(self, size: NetSize) -> None:
        super().__init__()
        self.size = size
        base, embedding = size.channels[0], 4 * size.channels[0]
        self.time_embed, self.camera_embed = _embedding(base, embedding), _embedding(size.camera, embedding)
        if size.image is not None:
            of = size.image
            self.image_embed = Resampler(
                of.inputs, of.width, of.inner, size.context, count=of.count, depth=of.depth, head=HEAD
            )
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(size.inputs, base, 3, padding=1)])])
        skips, width = [base], base
        for level, channels in enumerate(size.channels):
            for _ in range(size.blocks):
                self.input_blocks.append(self._block(width, channels, embedding, size.attends[level]))
                width = channels
                skips.append(width)
            if level < len(size.channels) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(width)]))
                skips.append(width)
        middle = self._block(width, width, embedding, True)
        self.middle_block = nn.ModuleList([*middle, ResBlock(width, width, embedding)])
        self.output_blocks = nn.ModuleList()
        for level, channels in reversed(list(enumerate(size.channels))):
            for index in range(size.blocks + 1):
                block = self._block(width + skips.pop(), channels, embedding, size.attends[level])
                width = channels
                if level and index == size.blocks:
                    block.append(Upsample(width))
                self.output_blocks.append(block)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, size.outputs, 3, padding=1))

    def _block(self, inputs: int, outputs: int, embedding: int, attends: bool) -> nn.ModuleList:
        size, layers = self.size, nn.ModuleList([ResBlock(inputs, outputs, embedding)])
        if attends:
            with_image = size.image is not None
            layers.append(JointTransformer(outputs, size.context, size.head, size.depth, with_image=with_image))
        return layers

    def image_tokens(self, hidden: Float[Tensor, "N M W"]) -> Float[Tensor, "N I C"]:
        """ImageDream's: from CLIP's hidden states to what stands beside the text."""
        return self.image_embed(hidden)

    def forward(
        self,
        x: Float[Tensor, "N 4 h w"],
        t: Int[Tensor, N],
        context: Float[Tensor, "N L C"],
        camera: Float[Tensor, "N 16"],
        image: Float[Tensor, "N I C"] | None = None,
        *,
        frames: int,
    ) -> Float[Tensor, "N 4 h w"]:
        """
        Args:
            context: the text's tokens.
            camera: `dg.core.camera.pose_mvdream`.
            image: `image_tokens`, for ImageDream.
            frames: pictures of a sample.
        """
        embedding = self.time_embed(time_tokens(t, self.size.channels[0]).to(x.dtype)) + self.camera_embed(camera)
        given, kept = (embedding, context, image, frames), []
        for block in self.input_blocks:
            x = _through(block, x, *given)
            kept.append(x)
        x = _through(self.middle_block, x, *given)
        for block in self.output_blocks:
            x = _through(block, torch.cat([x, kept.pop()], 1), *given)
        return self.out(x)


def _through(
    layers: nn.ModuleList, x: Tensor, embedding: Tensor, context: Tensor, image: Tensor | None, frames: int
) -> Tensor:
    for layer in layers:
        if isinstance(layer, ResBlock):
            x = layer(x, embedding)
        elif isinstance(layer, JointTransformer):
            x = layer(x, context, image, frames)
        else:
            x = layer(x)
    return x
