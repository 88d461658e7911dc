"""Texture look-up: bilinear, or trilinear between mip levels when the footprint of a pixel is known.

Conventions: row 0 of the texture is at v = 0, texel centres at +0.5, clamped at the border, any size. `sample_torch` is
the definition and runs on any device. `sample` has the same values and gradients: on the CPU by a compiled kernel, on a
GPU by nvdiffrast's or, without it, by gathering the eight texels around each pixel. Neither waits for the GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dg.core.transfer import constant
from dg.meshraster import texture_library
from dg.meshraster._jit import compiled, side_by_side
from dg.meshraster.mips import mip_level, mip_levels

_PIECE = 1 << 16  # pixels per unit of work in the forward pass


def sample(
    texture: Float[Tensor, "h w C"],
    uv: Float[Tensor, "V H W 2"],
    uv_dxy: Float[Tensor, "V H W 4"] | None = None,
    mask: Bool[Tensor, "V H W"] | None = None,
    mips: list[Tensor] | None = None,
) -> Float[Tensor, "V H W C"]:
    """Looks the texture up at `uv`; differentiable in the texture (not in uv), deterministic on the CPU.

    Args:
        uv_dxy: du/dX, du/dY, dv/dX, dv/dY per pixel (`interpolate_dxy`). With it the look-up is trilinear, at the level
            where the longer axis of the pixel's footprint is one texel (OpenGL's linear-mipmap-linear; the longer axis
            is the exact one of the ellipse, as in nvdiffrast). Without it the look-up is bilinear in the full texture.
        mask: only these pixels are looked up; the others are 0.
        mips: `mip_levels(texture)` where they are known already.
    """
    if texture_library.usable(texture) and uv.numel() > 0:  # the library refuses to look nothing up
        levels = [texture] if uv_dxy is None else mip_levels(texture) if mips is None else mips
        return texture_library.sample_nvdiffrast(levels, uv, uv_dxy, mask)
    if texture.device.type != "cpu":
        return sample_gather(texture, uv, uv_dxy, mask, mips)
    if texture.dtype not in (torch.float32, torch.float64):
        return sample_torch(texture, uv, uv_dxy, mask)  # makes its own levels
    pixels = _pixels(uv, mask)
    coordinates = uv.detach().reshape(-1, 2)[pixels].to(texture.dtype)
    if uv_dxy is None:
        levels, level = [texture], torch.zeros_like(coordinates[:, 0])
    else:
        levels = mip_levels(texture) if mips is None else mips
        level = mip_level(uv_dxy.detach().reshape(-1, 4)[pixels], texture.shape[:2], len(levels)).to(texture.dtype)
    stack = torch.cat([x.reshape(-1, x.shape[-1]) for x in levels]) if len(levels) > 1 else texture.flatten(0, 1)
    shapes = torch.tensor([x.shape[:2] for x in levels])
    return _spread(_Lookup.apply(stack, coordinates, level, shapes), pixels, uv)


def sample_torch(
    texture: Float[Tensor, "h w C"],
    uv: Float[Tensor, "V H W 2"],
    uv_dxy: Float[Tensor, "V H W 4"] | None = None,
    mask: Bool[Tensor, "V H W"] | None = None,
) -> Float[Tensor, "V H W C"]:
    """The same in torch operations: the reference, and the path for other devices."""
    pixels = _pixels(uv, mask)
    coordinates = uv.detach().reshape(-1, 2)[pixels].to(texture.dtype)
    if uv_dxy is None:
        return _spread(_bilinear(texture, coordinates), pixels, uv)
    levels = mip_levels(texture)
    level = mip_level(uv_dxy.detach().reshape(-1, 4)[pixels], texture.shape[:2], len(levels)).to(texture.dtype)
    out = texture.new_zeros(len(pixels), texture.shape[-1])
    for i, image in enumerate(levels):
        weight = (1 - (level - i).abs()).clamp_min(0)  # a level's share: 1 at its own number, 0 one level away
        used = weight.nonzero()[:, 0]
        out = out.index_add(0, used, weight[used, None] * _bilinear(image, coordinates[used]))
    return _spread(out, pixels, uv)


def sample_gather(
    texture: Float[Tensor, "h w C"],
    uv: Float[Tensor, "V H W 2"],
    uv_dxy: Float[Tensor, "V H W 4"] | None = None,
    mask: Bool[Tensor, "V H W"] | None = None,
    mips: list[Tensor] | None = None,
) -> Float[Tensor, "V H W C"]:
    """The same with the levels laid end to end: four texels of each of two levels, gathered and scattered at once.

    Gradients are added up in no fixed order on a GPU.
    """
    pixels = _pixels(uv, mask)
    coordinates = uv.detach().reshape(-1, 2)[pixels].to(texture.dtype)
    if uv_dxy is None:
        levels, both = [texture], [(torch.zeros_like(coordinates[:, 0], dtype=torch.long), 1.0)]
    else:
        levels = mip_levels(texture) if mips is None else mips
        level = mip_level(uv_dxy.detach().reshape(-1, 4)[pixels], texture.shape[:2], len(levels)).to(texture.dtype)
        base = level.long()
        share = level - base
        both = [(base, 1 - share), ((base + 1).clamp_max(len(levels) - 1), share)]
    stack = torch.cat([x.reshape(-1, x.shape[-1]) for x in levels])
    sizes = constant([s for x in levels for s in x.shape[:2]], coordinates).reshape(-1, 2)
    starts = constant(np.cumsum([0, *(x[..., 0].numel() for x in levels[:-1])]).tolist(), uv, torch.int32)
    out = 0
    for i, share in both:
        index, weight = _around(coordinates, sizes[i], starts[i], share)
        found = stack.index_select(0, index.reshape(-1)).reshape(*index.shape, -1)
        out = out + (found * weight[..., None]).sum(0)
    return _spread(out, pixels, uv)


def _around(
    uv: Float[Tensor, "N 2"], size: Float[Tensor, "N 2"], start: Int[Tensor, " N"], share: Tensor | float
) -> tuple[Int[Tensor, "4 N"], Float[Tensor, "4 N"]]:
    """The four texels around each point in a stack of levels, and their weights."""
    last = size.flip(1) - 1  # of x, y
    xy = torch.minimum((uv * size.flip(1) - 0.5).clamp_min(0), last)
    low = torch.minimum(xy.floor(), (last - 1).clamp_min(0))
    (x, y), (fx, fy) = low.unbind(1), (xy - low).unbind(1)
    (x1, y1), width = torch.minimum(low + 1, last).unbind(1), size[:, 1].int()
    rows, columns = [start + width * v.int() for v in (y, y1)], [v.int() for v in (x, x1)]
    index = torch.stack([row + column for row in rows for column in columns])
    return index, torch.stack([a * b * share for a in (1 - fy, fy) for b in (1 - fx, fx)])


def _pixels(uv: Tensor, mask: Tensor | None) -> Int[Tensor, " n"]:
    if mask is None:
        return torch.arange(uv[..., 0].numel(), device=uv.device)
    return mask.reshape(-1).nonzero()[:, 0]


def _spread(values: Tensor, pixels: Tensor, uv: Tensor) -> Tensor:
    shape = (*uv.shape[:-1], values.shape[-1])
    if len(pixels) == uv[..., 0].numel():
        return values.reshape(shape)
    return values.new_zeros(uv[..., 0].numel(), values.shape[-1]).index_copy(0, pixels, values).reshape(shape)


def _bilinear(image: Float[Tensor, "h w C"], uv: Float[Tensor, "N 2"]) -> Float[Tensor, "N C"]:
    h, w = image.shape[:2]
    x, y = (uv[:, 0] * w - 0.5).clamp(0, w - 1), (uv[:, 1] * h - 0.5).clamp(0, h - 1)
    x0, y0 = x.long().clamp_max(max(w - 2, 0)), y.long().clamp_max(max(h - 2, 0))
    x1, y1 = (x0 + 1).clamp_max(w - 1), (y0 + 1).clamp_max(h - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    return top * (1 - fy) + (image[y1, x0] * (1 - fx) + image[y1, x1] * fx) * fy


class _Lookup(torch.autograd.Function):
    """Trilinear look-up in a stack of levels laid end to end; shapes [L 2] are their (height, width)."""

    @staticmethod
    def forward(ctx, stack, uv, level, shapes):
        ctx.save_for_backward(uv, level, shapes)
        ctx.texels = len(stack)
        out = torch.empty(len(uv), stack.shape[-1], dtype=stack.dtype)
        _gather(
            stack.detach().contiguous().numpy(), uv.contiguous().numpy(), level.numpy(), shapes.numpy(), out.numpy()
        )
        return out

    @staticmethod
    def backward(ctx, gradient):
        uv, level, shapes = ctx.saved_tensors
        out = torch.zeros(ctx.texels, gradient.shape[-1], dtype=gradient.dtype)
        arrays = [x.contiguous().numpy() for x in (gradient, uv, level, shapes)]
        sums, bands = out.numpy(), torch.get_num_threads() if len(uv) > _PIECE else 1
        side_by_side(lambda band: _scatter(*arrays, band, bands, sums), range(bands))
        return out, None, None, None


@compiled(inline="always")
def _texels(u, v, height, width):
    """The four texels around a point as two rows and two columns, with the weights of the second of each."""
    x = min(max(u * width - 0.5, 0.0), width - 1.0)
    y = min(max(v * height - 0.5, 0.0), height - 1.0)
    x0, y0 = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    return y0, min(y0 + 1, height - 1), x0, min(x0 + 1, width - 1), y - y0, x - x0


@compiled()
def _offsets(shapes):
    offsets = np.zeros(len(shapes) + 1, np.int64)
    for i in range(len(shapes)):
        offsets[i + 1] = offsets[i] + shapes[i, 0] * shapes[i, 1]
    return offsets


@compiled()
def _gather(stack, uv, level, shapes, out):
    offsets = _offsets(shapes)
    for n in range(len(uv)):
        for c in range(out.shape[1]):
            out[n, c] = 0
        base = int(level[n])
        share = level[n] - base
        for step in range(2):
            weight = share if step else 1 - share
            if weight == 0:
                continue
            i = base + step
            width = shapes[i, 1]
            y0, y1, x0, x1, fy, fx = _texels(uv[n, 0], uv[n, 1], shapes[i, 0], width)
            r0, r1 = offsets[i] + y0 * width, offsets[i] + y1 * width
            for c in range(out.shape[1]):
                top = stack[r0 + x0, c] * (1 - fx) + stack[r0 + x1, c] * fx
                bottom = stack[r1 + x0, c] * (1 - fx) + stack[r1 + x1, c] * fx
                out[n, c] += weight * (top * (1 - fy) + bottom * fy)


@compiled()
def _scatter(gradient, uv, level, shapes, band, bands, out):
    """The transpose of `_gather` for every `bands`-th row of texels. Each texel sums in the order of the pixels, so the
    result is the same with any number of bands."""
    offsets = _offsets(shapes)
    for n in range(len(uv)):
        base = int(level[n])
        share = level[n] - base
        for step in range(2):
            weight = share if step else 1 - share
            if weight == 0:
                continue
            i = base + step
            width = shapes[i, 1]
            y0, y1, x0, x1, fy, fx = _texels(uv[n, 0], uv[n, 1], shapes[i, 0], width)
            for y, wy in ((y0, weight * (1 - fy)), (y1, weight * fy)):
                if y % bands == band:
                    row = offsets[i] + y * width
                    for c in range(out.shape[1]):
                        out[row + x0, c] += wy * (1 - fx) * gradient[n, c]
                        out[row + x1, c] += wy * fx * gradient[n, c]
