"""Which novel views a step sees, and what lies behind them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import FOVY_DEG, orbit, vertical_range
from dg.types import Cameras, Render


@dataclass(frozen=True)
class NovelView:
    """What one step shows the prior."""

    render: Render
    cameras: Cameras  # V views
    background: Float[Tensor, "V 3"]


@dataclass(frozen=True)
class OrbitSampler:
    """Whole-degree poses on a sphere around the origin, as DreamGaussian draws them.

    Attributes:
        radius: world units; the reference stands there too.
        min_elevation, max_elevation: of the novel views relative to the reference, widened so that level views stay
            reachable from a tilted one (`dg.core.camera.vertical_range`); degrees, negative is above.
        batch_size: samples per step.
    """

    radius: float = 2.0
    fovy_deg: float = FOVY_DEG
    min_elevation: float = -30.0
    max_elevation: float = 30.0
    batch_size: int = 1

    def reference(self, elevation_deg: float, size: int, views_per_sample: int = 1) -> Cameras:
        """The known view: azimuth 0, and 90 where a sample has four views (the second of them is the front)."""
        azimuth = 0.0 if views_per_sample == 1 else 90.0
        return orbit(elevation_deg, azimuth, self.radius, fovy_deg=self.fovy_deg, height=size)

    def sample(
        self, generator: torch.Generator, reference_elevation_deg: float, size: int, views_per_sample: int = 1
    ) -> Cameras:
        """batch_size * views_per_sample views; those of one sample follow each other, 360 / n degrees apart."""
        lo, hi = vertical_range(self.min_elevation, self.max_elevation, reference_elevation_deg)
        vertical = torch.randint(lo, max(hi, lo + 1), (self.batch_size,), generator=generator)
        horizontal = torch.randint(-180, 180, (self.batch_size,), generator=generator)
        turn = torch.arange(views_per_sample) * (360 // views_per_sample)
        elevation = (reference_elevation_deg + vertical)[:, None].expand(-1, views_per_sample)
        azimuth = horizontal[:, None] + turn
        return orbit(elevation.reshape(-1), azimuth.reshape(-1), self.radius, fovy_deg=self.fovy_deg, height=size)


@dataclass(frozen=True)
class RandomBackground:
    """Black with `black_probability`, else white: one draw per sample, the same for all of its views."""

    black_probability: float = 0.5

    def sample(self, generator: torch.Generator, batch_size: int, views_per_sample: int = 1) -> Float[Tensor, "B 3"]:
        black = torch.rand(batch_size, generator=generator) < self.black_probability
        return (~black).float().repeat_interleave(views_per_sample)[:, None].expand(-1, 3).contiguous()
