"""Camera protocols: which views a figure is measured on."""

from __future__ import annotations

from dg.core.camera import FOVY_DEG, orbit
from dg.types import Cameras


def novel16(size: int = 128, radius: float = 2.0, fovy_deg: float = FOVY_DEG) -> Cameras:
    """Sixteen views: elevations 0 and -20 (from above), every 45 degrees."""
    azimuths = [45.0 * i for i in range(8)]
    return orbit([0.0] * 8 + [-20.0] * 8, azimuths * 2, radius, fovy_deg=fovy_deg, height=size)
