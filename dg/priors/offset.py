"""The adapter of priors whose data is one picture per view: an offset of that picture, whose optimum is known."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dg.core.diffusion import eps_from_x0, per_sample
from dg.types import Cameras, Condition


class OffsetAdapter(nn.Module):
    """Noise of a point mass at x* + D(view): exact where D = x - x*, the difference of the render and the data.

    D is linear in the view's direction (1, x, y, z) and in the background's brightness: eight pictures, zero at first.
    At one view that is every D there can be; around an object it is the slow part of it (experiments/distillations).
    """

    lr = 0.1  # of Adam: pictures in [0, 1], not weights of a network

    def __init__(self, alpha_bar: Float[Tensor, T], image_size: int) -> None:
        super().__init__()
        self._alpha_bar = alpha_bar
        self.pictures = nn.Parameter(torch.zeros(8, 3, image_size, image_size))

    def predict(self, z_t: Float[Tensor, "B 3 h w"], t: Int[Tensor, B], cond: Condition) -> Float[Tensor, "B 3 h w"]:
        basis = view_basis(cond.cameras, cond.background).to(self.pictures)
        offset = torch.einsum("bk,kchw->bchw", basis, self.pictures)
        return eps_from_x0(z_t, cond.extra.to(z_t) + offset, per_sample(self._alpha_bar.to(t.device)[t], z_t))


def view_basis(cameras: Cameras, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B 8"]:
    """(1, direction) and the same times the background's mean around 1/2; the direction points to the camera."""
    direction = nn.functional.normalize(cameras.position, dim=-1)
    first = torch.cat([torch.ones_like(direction[:, :1]), direction], -1)
    return torch.cat([first, first * (background.to(first).mean(-1, keepdim=True) - 0.5)], -1)
