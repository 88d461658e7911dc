"""How the kernels of group normalisation are launched: in which way, with which blocks, on which memory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """What `plan` follows; powers of two. benchmarks/group_norm.py compares several.

    Attributes:
        whole_up_to: values of a group up to which one program does all of it.
        whole_block, whole_warps: values that such a program holds at a time, and its warps.
        rows, columns, warps: pixels and channels of a program's block otherwise.
        programs: about so many read the picture for its statistics.
        finish: partial results that are combined at a time.
    """

    whole_up_to: int = 32768
    whole_block: int = 4096
    whole_warps: int = 8
    rows: int = 64
    columns: int = 32
    warps: int = 4
    programs: int = 1024
    finish: int = 2048


RULE = Rule()


@dataclass(frozen=True)
class Plan:
    """How one shape is launched: `whole` (`norm_kernels`) or split (`norm_kernels_split`), and its blocks.

    Attributes:
        tile_pixels, tiles: of the statistics of the split way; every tile has a pixel.
    """

    whole: bool
    rows: int
    columns: int
    warps: int
    tile_pixels: int
    tiles: int


def plan(samples: int, pixels: int, channels: int, groups: int, rule: Rule = RULE) -> Plan:
    """By sizes alone, so that nothing is tried out while a CUDA graph is recorded."""
    per_group = channels // groups
    if pixels * per_group <= rule.whole_up_to:
        columns = _power_of_two(per_group)
        return Plan(True, max(1, rule.whole_block // columns), columns, rule.whole_warps, pixels, 1)
    chunks = -(-channels // rule.columns)
    steps = -(-pixels // rule.rows)
    tiles = max(1, min(rule.programs // (samples * chunks), steps))
    tile_pixels = -(-steps // tiles) * rule.rows
    return Plan(False, rule.rows, rule.columns, rule.warps, tile_pixels, -(-pixels // tile_pixels))


def _power_of_two(n: int) -> int:
    """The smallest one that is not below n."""
    return 1 << (n - 1).bit_length()


def forward(
    x: Float[Tensor, "N C H W"],
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    rule: Rule = RULE,
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    """The result, and for each channel its group's mean less shift, and 1 / standard deviation (float32).

    x is in channels-last order.

    Raises:
        ValueError: as many values as 32-bit addresses do not reach.
    """
    from dg.priors import norm_kernels as whole
    from dg.priors import norm_kernels_split as split

    samples, channels, pixels, per_group, how = _sizes(x, groups, rule)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    mean, scale = (_numbers(x, samples, channels) for _ in range(2))
    blocks = {"ROWS": how.rows, "COLUMNS": how.columns, "num_warps": how.warps}
    step = -1 if shift is None else channels if shift.numel() > channels else 0
    shift = weight if shift is None else shift.contiguous()
    with _on(x):
        if how.whole:
            given = x, shift, weight, bias, out, mean, scale, step, pixels, channels, groups, eps, int(silu)
            whole.whole_forward[(samples * groups,)](*given, PER_GROUP=per_group, **blocks)
            return out, mean, scale
        chunks, rows = -(-channels // how.columns), -(-pixels // how.rows)
        parts = _numbers(x, 2, samples, channels, how.tiles)
        tiles = how.tiles, how.tile_pixels
        split.tile_statistics[(how.tiles, chunks, samples)](x, *parts, pixels, channels, *tiles, **blocks)
        given = *parts, shift, mean, scale, step, pixels, groups, per_group, *tiles, eps
        split.finish_statistics[(samples * groups,)](*given, BLOCK=rule.finish, num_warps=how.warps)
        given = x, weight, bias, out, mean, scale, pixels, channels, int(silu)
        split.apply_forward[(rows, chunks, samples)](*given, **blocks)
    return out, mean, scale


def backward(
    x: Float[Tensor, "N C H W"],
    slope: Float[Tensor, "N C H W"],
    weight: Tensor,
    bias: Tensor,
    mean: Float[Tensor, "N C"],
    scale: Float[Tensor, "N C"],
    groups: int,
    silu: bool,
    rule: Rule = RULE,
) -> Float[Tensor, "N C H W"]:
    """The gradient on x from that on the result. With u = (x - mean) scale (`forward`'s) and g the gradient on u it is
    scale (g - <g> - u <g u>), <> the mean over the group; what SiLU was given is computed anew.
    """
    from dg.priors import norm_kernels as whole
    from dg.priors import norm_kernels_split as split

    samples, channels, pixels, per_group, how = _sizes(x, groups, rule)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    blocks = {"ROWS": how.rows, "COLUMNS": how.columns, "num_warps": how.warps}
    known = x, slope, weight, bias, mean, scale
    with _on(x):
        if how.whole:
            given = *known, out, pixels, channels, groups, int(silu)
            whole.whole_backward[(samples * groups,)](*given, PER_GROUP=per_group, **blocks)
            return out
        chunks, rows = -(-channels // how.columns), -(-pixels // how.rows)
        parts = _numbers(x, 2, samples, channels, how.tiles)
        means = _numbers(x, 2, samples, channels)
        tiles = how.tiles, how.tile_pixels
        given = *known, *parts, pixels, channels, *tiles, int(silu)
        split.tile_sums[(how.tiles, chunks, samples)](*given, **blocks)
        given = *parts, *means, pixels, per_group, how.tiles
        split.finish_sums[(samples * groups,)](*given, BLOCK=rule.finish, num_warps=how.warps)
        given = *known, *means, out, pixels, channels, int(silu)
        split.apply_backward[(rows, chunks, samples)](*given, **blocks)
    return out


def _sizes(x: Tensor, groups: int, rule: Rule) -> tuple[int, int, int, int, Plan]:
    samples, channels, height, width = x.shape
    if x.numel() >= 2**31:
        raise ValueError(f"{tuple(x.shape)} has {x.numel()} values; the kernels address less than 2^31")
    pixels = height * width
    return samples, channels, pixels, channels // groups, plan(samples, pixels, channels, groups, rule)


def _numbers(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, device=like.device, dtype=torch.float32)


def _on(x: Tensor) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
