"""Group normalisation, with SiLU on request, of pictures in channels-last order: torch has no kernels for that order.

On CUDA torch copies such a picture to the usual order first, and the convolution that follows copies it back, which
makes the fast layout of the convolutions slow (docs/gpu_speed.md). The kernels here read and write channels-last, with
statistics in float32, differentiable in the picture; the weights are constants.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dg.priors.norm_launch import RULE, Rule, backward, forward

log = logging.getLogger("dg")

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
VALUES = range(1, 2**31)  # how many the kernels can address


def group_norm(
    x: Float[Tensor, "N C *HW"],
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    silu: bool,
    shift: Float[Tensor, "#N C"] | Float[Tensor, " C"] | None = None,
) -> Float[Tensor, "N C *HW"]:
    """F.group_norm of x, or of x + shift for every channel, then F.silu where asked.

    By the kernels on CUDA (where `kernels_work` has been asked), for pictures [N C H W] and rows of pixels [N C L]
    whose weights are constants; the result is in channels-last order, and so is its gradient. Inputs in another order
    are copied to it first. All else is torch's.
    """
    learns = torch.is_grad_enabled() and any(w is not None and w.requires_grad for w in (weight, bias))
    fits = x.ndim in (3, 4) and x.dtype in DTYPES and x.numel() in VALUES and weight is not None and bias is not None
    if not (x.is_cuda and fits) or learns:
        moved = x if shift is None else x + shift.reshape(-1, x.shape[1], *(1,) * (x.ndim - 2))
        value = F.group_norm(moved, groups, weight, bias, eps)
        return F.silu(value) if silu else value
    if x.ndim == 3:
        return GroupNorm.apply(x.unsqueeze(-1), shift, weight, bias, groups, eps, silu).squeeze(-1)
    return GroupNorm.apply(x, shift, weight, bias, groups, eps, silu)


class GroupNorm(torch.autograd.Function):
    """The kernels, without a look at whether they can run; once differentiable, in x and shift."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        silu: bool,
        rule: Rule = RULE,
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        out, mean, scale = forward(x, shift, weight, bias, groups, eps, silu, rule)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        ctx.groups, ctx.silu, ctx.rule, ctx.shift = groups, silu, rule, None if shift is None else shift.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        slope = slope.contiguous(memory_format=torch.channels_last)
        found = backward(x, slope, *saved, ctx.groups, ctx.silu, ctx.rule)
        moved = found.sum((2, 3)).sum_to_size(ctx.shift) if ctx.needs_input_grad[1] else None
        return found, moved, None, None, None, None, None, None


@lru_cache
def kernels_work(device: torch.device) -> bool:
    """Whether the kernels run there; where Triton is installed but fails (no C compiler), one warning says so."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        x = torch.zeros(1, 320, 4, 4, device=device, dtype=torch.float16)
        weight = torch.ones(320, device=device, dtype=torch.float16)
        forward(x.to(memory_format=torch.channels_last), None, weight, weight, 32, 1e-5, True)
    except Exception as error:  # Triton's own kinds, those of the driver and of the compiler
        said = " ".join(str(error).split())[:200]
        log.warning("group norms stay torch's, which is slower: Triton fails (%s: %s)", type(error).__name__, said)
        return False
    return True
