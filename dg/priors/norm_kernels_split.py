"""Triton kernels of group normalisation for large pictures (see `norm_kernels`).

Programs for tiles of pixels and channels write partial results of each channel, one program for each group combines
them, and programs for tiles apply the result.
"""

import triton
import triton.language as tl

from dg.priors.norm_kernels import ONCE, activated, added, pulled, shift_of


@triton.jit(**ONCE)
def tile_statistics(
    x_at, mean_at, m2_at, pixels, channels, tiles, tile_pixels, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Of each channel within a tile the mean and the sum of squared deviations: [N C tiles]."""
    tile, sample = tl.program_id(0), tl.program_id(2)
    rows, columns = tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = columns < channels
    begin = tile * tile_pixels
    end = tl.minimum(begin + tile_pixels, pixels)
    mean, m2 = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    count = tl.zeros([ROWS], tl.float32)
    for start in range(begin, end, ROWS):
        inside = start + rows < end
        mask = inside[:, None] & used[None, :]
        at = (sample * pixels + start + rows)[:, None] * channels + columns[None, :]
        x = tl.load(x_at + at, mask=mask, other=0.0).to(tl.float32)
        mean, m2, count = added(x, mean, m2, count, inside, mask)
    centre = tl.sum(count[:, None] * mean, 0) / (end - begin)
    away = mean - centre[None, :]
    to = (sample * channels + columns) * tiles + tile
    tl.store(mean_at + to, centre, mask=used)
    tl.store(m2_at + to, tl.sum(m2 + count[:, None] * away * away, 0), mask=used)


@triton.jit(**ONCE)
def finish_statistics(
    part_mean_at, part_m2_at, shift_at, mean_at, scale_at, step, pixels, groups, per_group, tiles, tile_pixels, eps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A group's partial results, which lie in a row, combined."""
    program = tl.program_id(0)
    sample, first = program // groups, program % groups * per_group
    length, size = per_group * tiles, pixels * per_group
    places = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + places
        count = tl.minimum(tile_pixels, pixels - (at % tiles) * tile_pixels).to(tl.float32)
        mean = tl.load(part_mean_at + program * length + at, mask=at < length, other=0.0)
        mean += shift_of(shift_at, sample, step, first + at // tiles, at < length)
        total += tl.where(at < length, count * mean, 0.0)
    centre = tl.sum(total, 0) / size
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + places
        count = tl.minimum(tile_pixels, pixels - (at % tiles) * tile_pixels).to(tl.float32)
        mean = tl.load(part_mean_at + program * length + at, mask=at < length, other=0.0)
        away = mean + shift_of(shift_at, sample, step, first + at // tiles, at < length) - centre
        m2 = tl.load(part_m2_at + program * length + at, mask=at < length, other=0.0)
        total += tl.where(at < length, m2 + count * away * away, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(total, 0) / size + eps)
    for start in range(0, per_group, BLOCK):
        channel = start + places
        shift = shift_of(shift_at, sample, step, first + channel, channel < per_group)
        tl.store(mean_at + program * per_group + channel, centre - shift, mask=channel < per_group)
        tl.store(scale_at + program * per_group + channel, scale, mask=channel < per_group)


@triton.jit(**ONCE)
def apply_forward(
    x_at, weight_at, bias_at, y_at, mean_at, scale_at, pixels, channels, silu,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(2)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = columns < channels
    channel = sample * channels + columns
    centre = tl.load(mean_at + channel, mask=used, other=0.0)
    scale = tl.load(scale_at + channel, mask=used, other=0.0)
    weight = tl.load(weight_at + columns, mask=used, other=0.0).to(tl.float32)
    bias = tl.load(bias_at + columns, mask=used, other=0.0).to(tl.float32)
    mask = (rows < pixels)[:, None] & used[None, :]
    at = (sample * pixels + rows)[:, None] * channels + columns[None, :]
    x = tl.load(x_at + at, mask=mask, other=0.0).to(tl.float32)
    unit = (x - centre[None, :]) * scale[None, :]
    tl.store(y_at + at, activated(unit * weight[None, :] + bias[None, :], silu), mask=mask)


@triton.jit(**ONCE)
def tile_sums(
    x_at, slope_at, weight_at, bias_at, mean_at, scale_at, plain_at, along_at,
    pixels, channels, tiles, tile_pixels, silu, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each channel within a tile the sums of g, the gradient on the unit values, and of g * unit: [N C tiles]."""
    tile, sample = tl.program_id(0), tl.program_id(2)
    rows, columns = tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = columns < channels
    channel = sample * channels + columns
    centre = tl.load(mean_at + channel, mask=used, other=0.0)[None, :]
    scale = tl.load(scale_at + channel, mask=used, other=0.0)[None, :]
    weight = tl.load(weight_at + columns, mask=used, other=0.0).to(tl.float32)[None, :]
    bias = tl.load(bias_at + columns, mask=used, other=0.0).to(tl.float32)[None, :]
    begin = tile * tile_pixels
    end = tl.minimum(begin + tile_pixels, pixels)
    plain, along = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(begin, end, ROWS):
        mask = (start + rows < end)[:, None] & used[None, :]
        at = (sample * pixels + start + rows)[:, None] * channels + columns[None, :]
        unit, slope = pulled(x_at, slope_at, at, mask, centre, scale, weight, bias, silu)
        plain += slope
        along += slope * unit
    to = channel * tiles + tile
    tl.store(plain_at + to, tl.sum(plain, 0), mask=used)
    tl.store(along_at + to, tl.sum(along, 0), mask=used)


@triton.jit(**ONCE)
def finish_sums(part_plain_at, part_along_at, plain_at, along_at, pixels, per_group, tiles, BLOCK: tl.constexpr):
    """The means of g and g * unit over a group, for every channel [N C]."""
    program = tl.program_id(0)
    length, size = per_group * tiles, pixels * per_group
    places = tl.arange(0, BLOCK)
    plain, along = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + places
        plain += tl.load(part_plain_at + program * length + at, mask=at < length, other=0.0)
        along += tl.load(part_along_at + program * length + at, mask=at < length, other=0.0)
    plain_mean = tl.sum(plain, 0) / size
    along_mean = tl.sum(along, 0) / size
    for start in range(0, per_group, BLOCK):
        channel = start + places
        tl.store(plain_at + program * per_group + channel, plain_mean, mask=channel < per_group)
        tl.store(along_at + program * per_group + channel, along_mean, mask=channel < per_group)


@triton.jit(**ONCE)
def apply_backward(
    x_at, slope_at, weight_at, bias_at, mean_at, scale_at, plain_at, along_at, out_at,
    pixels, channels, silu, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(2)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = columns < channels
    channel = sample * channels + columns
    centre = tl.load(mean_at + channel, mask=used, other=0.0)[None, :]
    scale = tl.load(scale_at + channel, mask=used, other=0.0)[None, :]
    plain = tl.load(plain_at + channel, mask=used, other=0.0)[None, :]
    along = tl.load(along_at + channel, mask=used, other=0.0)[None, :]
    weight = tl.load(weight_at + columns, mask=used, other=0.0).to(tl.float32)[None, :]
    bias = tl.load(bias_at + columns, mask=used, other=0.0).to(tl.float32)[None, :]
    mask = (rows < pixels)[:, None] & used[None, :]
    at = (sample * pixels + rows)[:, None] * channels + columns[None, :]
    unit, slope = pulled(x_at, slope_at, at, mask, centre, scale, weight, bias, silu)
    tl.store(out_at + at, scale * (slope - plain - unit * along), mask=mask)
