"""Triton kernels of group normalisation, with SiLU on request, for pictures in channels-last order.

A tensor [N C H W] in that order is [N, H*W, C] in memory, pixels as rows. All arithmetic is float32. Variances come
from Welford's update within a program and Chan's formula between partial results (Chan, Golub and LeVeque 1983), so a
mean far from zero costs no accuracy. Nothing is added atomically: the same input gives the same bits. A constant that
each channel gets before the norm (`shift`) moves its means alone: what is kept is mean - shift, of every channel [N C].

Here is the way that is called whole: one program for each sample and group does everything, in two passes over its
pixels, the second one cached. The other way is in `norm_kernels_split`.

What tells variants apart (`tl.constexpr`, divisibility of `channels`) is kept little: each is compiled once.
"""

import triton
import triton.language as tl

# no variants by the divisibility of these
ONCE = {"do_not_specialize": ["pixels", "groups", "silu", "per_group", "tiles", "tile_pixels", "step"]}


@triton.jit
def activated(value, silu):
    return tl.where(silu != 0, value / (1.0 + tl.exp(-value)), value)


@triton.jit
def pulled(x_at, slope_at, at, mask, centre, scale, weight, bias, silu):
    """The unit value, and the gradient on it from the one on the result (0 outside the mask)."""
    unit = (tl.load(x_at + at, mask=mask, other=0.0).to(tl.float32) - centre) * scale
    slope = tl.load(slope_at + at, mask=mask, other=0.0).to(tl.float32)
    value = unit * weight + bias
    gate = 1.0 / (1.0 + tl.exp(-value))
    return unit, tl.where(silu != 0, slope * gate * (1.0 + value * (1.0 - gate)), slope) * weight


@triton.jit
def shift_of(shift_at, sample, step, channel, mask):
    """step: values between samples, 0 where all have the same; negative where there is no shift."""
    return tl.load(shift_at + sample * step + channel, mask=mask & (step >= 0), other=0.0).to(tl.float32)


@triton.jit
def added(x, mean, m2, count, inside, mask):
    """Welford's update at every place of a block; count [ROWS] is the values that a place has seen."""
    count += tl.where(inside, 1.0, 0.0)
    delta = tl.where(mask, x - mean, 0.0)
    mean += delta * (1.0 / tl.maximum(count, 1.0))[:, None]
    m2 += delta * (x - mean)
    return mean, m2, count


@triton.jit(**ONCE)
def whole_forward(
    x_at, shift_at, weight_at, bias_at, y_at, mean_at, scale_at, step, pixels, channels, groups, eps, silu,
    PER_GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    sample, group = program // groups, program % groups
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    used = columns < PER_GROUP
    first = sample * pixels * channels + group * PER_GROUP
    mean, m2 = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    count = tl.zeros([ROWS], tl.float32)
    for start in range(0, pixels, ROWS):
        inside = start + rows < pixels
        mask = inside[:, None] & used[None, :]
        at = first + (start + rows)[:, None] * channels + columns[None, :]
        x = tl.load(x_at + at, mask=mask, other=0.0).to(tl.float32)
        mean, m2, count = added(x, mean, m2, count, inside, mask)
    size = pixels * PER_GROUP
    share = tl.where(used[None, :], count[:, None], 0.0)
    channel = group * PER_GROUP + columns
    shift = shift_of(shift_at, sample, step, channel, used)
    mean += shift[None, :]
    centre = tl.sum(tl.sum(share * mean, 1), 0) / size
    away = mean - centre
    scale = 1.0 / tl.sqrt(tl.sum(tl.sum(m2 + share * away * away, 1), 0) / size + eps)
    kept = centre - shift
    tl.store(mean_at + sample * channels + channel, kept, mask=used)
    tl.store(scale_at + sample * channels + channel, tl.zeros([COLUMNS], tl.float32) + scale, mask=used)
    weight = tl.load(weight_at + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    bias = tl.load(bias_at + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    for start in range(0, pixels, ROWS):
        mask = (start + rows < pixels)[:, None] & used[None, :]
        at = first + (start + rows)[:, None] * channels + columns[None, :]
        x = tl.load(x_at + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(y_at + at, activated((x - kept[None, :]) * scale * weight + bias, silu), mask=mask)


@triton.jit(**ONCE)
def whole_backward(
    x_at, slope_at, weight_at, bias_at, mean_at, scale_at, out_at, pixels, channels, groups, silu,
    PER_GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    sample, group = program // groups, program % groups
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    used = columns < PER_GROUP
    first = sample * pixels * channels + group * PER_GROUP
    channel = group * PER_GROUP + columns
    centre = tl.load(mean_at + sample * channels + channel, mask=used, other=0.0)[None, :]
    scale = tl.load(scale_at + sample * channels + channel, mask=used, other=0.0)[None, :]
    weight = tl.load(weight_at + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    bias = tl.load(bias_at + channel, mask=used, other=0.0).to(tl.float32)[None, :]
    plain, along = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, pixels, ROWS):
        mask = (start + rows < pixels)[:, None] & used[None, :]
        at = first + (start + rows)[:, None] * channels + columns[None, :]
        unit, slope = pulled(x_at, slope_at, at, mask, centre, scale, weight, bias, silu)
        plain += slope
        along += slope * unit
    size = pixels * PER_GROUP
    plain_mean = tl.sum(tl.sum(plain, 1), 0) / size
    along_mean = tl.sum(tl.sum(along, 1), 0) / size
    for start in range(0, pixels, ROWS):
        mask = (start + rows < pixels)[:, None] & used[None, :]
        at = first + (start + rows)[:, None] * channels + columns[None, :]
        unit, slope = pulled(x_at, slope_at, at, mask, centre, scale, weight, bias, silu)
        tl.store(out_at + at, scale * (slope - plain_mean - unit * along_mean), mask=mask)
