"""The only place where Gaussians and their Adam moments change together.

One Adam holds one named group per attribute (Lightning counts every optimiser's step, so six optimisers would end a run
after a sixth of its iterations). Rows are kept, appended or replaced in all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dg.core.gaussians import RawGaussians

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Edit:
    """A change of the set of Gaussians.

    Rows where `keep` is False go; `append` comes after them, with zero moments; then `replace` overwrites whole
    attributes (by group name, for the rows that result) and zeroes their moments.
    """

    keep: Bool[Tensor, N]
    append: RawGaussians | None = None
    replace: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class LearningRates:
    """Adam's learning rates by attribute (3DGS's values as DreamGaussian uses them).

    `means` runs log-linearly from means_init to means_final over `means_until` of the run (None: the whole run). The
    release's position_lr_init 0.001 is multiplied by a spatial scale of 10; the products stand here.
    """

    means_init: float = 0.01
    means_final: float = 0.0002
    means_until: float = 1.0
    sh_dc: float = 0.01
    sh_rest: float = 0.0005
    opacity_logits: float = 0.05
    log_scales: float = 0.005
    quats: float = 0.005
    eps: float = 1e-15


def make_adam(params: Mapping[str, nn.Parameter], rates: LearningRates) -> torch.optim.Adam:
    groups = [
        {"name": name, "params": [p], "lr": rates.means_init if name == "means" else getattr(rates, name)}
        for name, p in params.items()
        if p.numel() or name != "sh_rest"
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in params.values())
    return torch.optim.Adam(groups, lr=0.0, eps=rates.eps, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, name: str, lr: float) -> None:
    for group in optimizer.param_groups:
        if group["name"] == name:
            group["lr"] = lr


@torch.no_grad()
def shift(params: nn.ParameterDict, name: str, offset: Tensor) -> None:
    """Adds to one attribute in place; Parameters keep their identity and Adam its moments."""
    params[name].add_(offset.to(params[name]))


def apply(optimizer: torch.optim.Optimizer, params: nn.ParameterDict, edit: Edit) -> None:
    """Applies `edit` in place: `params` and the optimiser's groups get new Parameters that share identity."""
    append = None if edit.append is None else edit.append.as_dict()
    replace = edit.replace or {}
    if unknown := set(replace) - set(params):
        raise KeyError(f"cannot replace {sorted(unknown)}: the attributes are {sorted(params)}")
    groups = {group["name"]: group for group in optimizer.param_groups}
    rows_kept = edit.keep.nonzero()[:, 0]  # a GPU is waited for here, once, and not for every attribute and moment
    for name in list(params):
        old = params[name]
        kept = old.detach()[rows_kept]
        new_rows = None if append is None else append[name].to(kept)
        value = kept if new_rows is None else torch.cat([kept, new_rows])
        if name in replace:
            value = replace[name].to(kept).reshape(value.shape).clone()
        new = nn.Parameter(value.contiguous())
        params[name] = new
        if name not in groups:
            continue
        state = optimizer.state.pop(old, None)
        groups[name]["params"] = [new]
        if state:
            for moment in _MOMENTS:
                rows = state[moment][rows_kept]
                if new_rows is not None:
                    rows = torch.cat([rows, torch.zeros_like(new_rows)])
                state[moment] = torch.zeros_like(rows) if name in replace else rows.contiguous()
            optimizer.state[new] = state
