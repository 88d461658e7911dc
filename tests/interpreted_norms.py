"""The kernels of `dg.priors.group_norm` on a CPU, by Triton's interpreter: `python -m tests.interpreted_norms`.

A process of its own, since the interpreter has to be chosen before Triton is loaded. Prints a JSON list: of each case
its name, whether the plan was whole, its tiles, the largest errors of value and gradients (relative to the largest true
one) against float64, and whether both are in channels-last order.
"""

import json
import os

import torch
import torch.nn.functional as F

from dg.core.rng import generator
from dg.priors.group_norm import GroupNorm
from dg.priors.norm_launch import Rule, plan

WHOLE = Rule(whole_block=256)
SPLIT = Rule(whole_up_to=0, rows=16, columns=16, programs=24, finish=64)

SHIFTS = {"of samples": lambda shape: shape[:2], "of channels": lambda shape: shape[1:2]}

# shape, groups, SiLU, rule, dtype, mean
CASES = {
    "whole, 10 channels a group": ((2, 40, 9, 7), 4, True, WHOLE, torch.float32, 0.0),
    "whole, no SiLU": ((1, 24, 5, 13), 8, False, WHOLE, torch.float32, 0.0),
    "whole, float16": ((1, 60, 4, 4), 3, True, WHOLE, torch.float16, 0.0),
    "whole, bfloat16": ((1, 40, 4, 6), 2, True, WHOLE, torch.bfloat16, 0.0),
    "whole, mean far from zero": ((1, 30, 8, 8), 1, False, WHOLE, torch.float32, 3000.0),
    "whole, one pixel, usual order": ((3, 8, 1, 1), 2, True, WHOLE, torch.float32, 0.0),
    "split, 10 channels a group": ((2, 40, 9, 11), 4, True, SPLIT, torch.float32, 0.0),
    "split, no SiLU": ((1, 24, 13, 5), 8, False, SPLIT, torch.float32, 0.0),
    "split, float16": ((1, 60, 8, 4), 3, True, SPLIT, torch.float16, 0.0),
    "split, bfloat16": ((1, 40, 4, 9), 2, True, SPLIT, torch.bfloat16, 0.0),
    "whole, shift of samples": ((2, 30, 4, 5), 3, True, WHOLE, torch.float32, 0.0),
    "whole, shift of channels": ((2, 30, 4, 5), 3, True, WHOLE, torch.float32, 0.0),
    "split, shift of samples": ((2, 30, 8, 5), 3, True, SPLIT, torch.float32, 0.0),
    "split, shift of channels": ((2, 30, 8, 5), 3, True, SPLIT, torch.float32, 0.0),
    "split, mean far from zero": ((1, 30, 8, 8), 1, False, SPLIT, torch.float32, 3000.0),
}


def outcome(name: str) -> dict:
    shape, groups, silu, rule, dtype, mean = CASES[name]
    draw = lambda label, *size: torch.randn(*size, generator=generator(0, label))  # noqa: E731
    usual = (2 * draw("x", *shape) + mean).to(dtype)
    x = (usual if "usual order" in name else usual.to(memory_format=torch.channels_last)).requires_grad_()
    weight, bias = (1 + 0.3 * draw("weight", shape[1])).to(dtype), draw("bias", shape[1]).to(dtype)
    slope = draw("slope", *shape).to(dtype)
    size = SHIFTS.get(name.partition("shift ")[2])
    shift = None if size is None else draw("shift", *size(shape)).to(dtype).requires_grad_()
    value = GroupNorm.apply(x, shift, weight, bias, groups, 1e-5, silu, rule)
    learnt = [y for y in (x, shift) if y is not None]
    gradient, *moved = torch.autograd.grad(value, learnt, slope)
    exact = [y.detach().double().requires_grad_() for y in learnt]
    given = exact[0] if shift is None else exact[0] + exact[1].reshape(-1, shape[1], 1, 1)
    true = F.group_norm(given, groups, weight.double(), bias.double(), 1e-5)
    true = F.silu(true) if silu else true
    true_gradient, *true_moved = torch.autograd.grad(true, exact, slope.double())
    how = plan(shape[0], shape[2] * shape[3], shape[1], groups, rule)
    return {
        "name": name,
        "whole": how.whole,
        "tiles": how.tiles,
        "value": _error(value, true),
        "gradient": _error(gradient, true_gradient),
        "shift": _error(moved[0], true_moved[0]) if moved else 0.0,
        "channels_last": all(y.is_contiguous(memory_format=torch.channels_last) for y in (value, gradient)),
    }


def _error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true).detach().abs().max() / true.detach().abs().max())


if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton is loaded by the first call
    print(json.dumps([outcome(name) for name in CASES]))
