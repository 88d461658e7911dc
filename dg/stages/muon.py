"""Muon for the matrices inside a transformer, Adam for everything else, as one optimiser.

Muon (Jordan et al. 2024): the momentum of a matrix is replaced by the nearest semi-orthogonal matrix, found by a few
Newton-Schulz iterations, so that all directions move alike. Its size is matched to Adam's (Liu et al. 2025, "Muon is
scalable for LLM training": 0.2 sqrt(max(rows, columns))), so that one learning rate serves both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # of the quintic x -> a x + b x^3 + c x^5 that drives singular values to about 1


def orthogonalised(m: Float[Tensor, "n rows columns"], iterations: int = 5) -> Float[Tensor, "n rows columns"]:
    """U V^T of each matrix's singular value decomposition, roughly: singular values end between 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    x = m.bfloat16() if m.is_cuda else m.float()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).to(m.dtype)


class MuonAdam(torch.optim.Optimizer):
    """Args:
    matrices: parameters [rows columns] that Muon updates. rest: what Adam updates, without weight decay.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.05,
    ) -> None:
        groups = [
            {"params": list(matrices), "muon": True, "step": 0},
            {"params": list(rest), "muon": False, "step": 0},
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] += 1
            live = [p for p in group["params"] if p.grad is not None]
            for p in live:
                if not self.state[p]:
                    names = ("mean",) if group["muon"] else ("mean", "square")
                    self.state[p].update({name: torch.zeros_like(p) for name in names})
            if live:
                (self._muon if group["muon"] else self._adam)(group, live)
        return loss

    def _muon(self, group: dict, live: list[nn.Parameter]) -> None:
        gradients, means = [p.grad for p in live], [self.state[p]["mean"] for p in live]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])
        torch._foreach_mul_(live, 1 - group["lr"] * group["weight_decay"])
        by_shape = defaultdict(list)
        for p, m in zip(live, ahead, strict=True):
            by_shape[p.shape].append((p, m))
        for shape, pairs in by_shape.items():
            updates = orthogonalised(torch.stack([m for _, m in pairs]))
            size = 0.2 * max(shape) ** 0.5
            torch._foreach_add_([p for p, _ in pairs], list(updates.unbind(0)), alpha=-group["lr"] * size)

    def _adam(self, group: dict, live: list[nn.Parameter]) -> None:
        gradients, (b1, b2) = [p.grad for p in live], group["betas"]
        means, squares = [self.state[p]["mean"] for p in live], [self.state[p]["square"] for p in live]
        torch._foreach_lerp_(means, gradients, 1 - b1)
        torch._foreach_mul_(squares, b2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - b2)
        scale = torch._foreach_sqrt(squares)
        torch._foreach_div_(scale, (1 - b2 ** group["step"]) ** 0.5)
        torch._foreach_add_(scale, 1e-8)
        torch._foreach_addcdiv_(live, means, scale, -group["lr"] / (1 - b1 ** group["step"]))
