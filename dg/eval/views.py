"""Camera protocols: which views a figure is measured on."""

from __future__ import annotations

from dg.core.camera import FOVY_DEG
from dg.eval.protocol import ViewSpec
from dg.types import Cameras

NOVEL16 = ViewSpec((0.0,) * 8 + (-20.0,) * 8, tuple(45.0 * i for i in range(8)) * 2)
FRONT_ONLY = ViewSpec((0.0,), (0.0,))
ORBIT8 = ViewSpec((0.0,) * 8, tuple(45.0 * i for i in range(8)))

BY_NAME = {"novel16": NOVEL16, "orbit8": ORBIT8, "front": FRONT_ONLY}


def novel16(size: int = 128, radius: float = 2.0, fovy_deg: float = FOVY_DEG) -> Cameras:
    """Sixteen views: elevations 0 and -20 (from above), every 45 degrees."""
    spec = NOVEL16
    return ViewSpec(spec.elevations_deg, spec.azimuths_deg, radius, fovy_deg, size).cameras()
