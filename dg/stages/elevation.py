"""`elevation=auto`: from which elevation a picture was taken, by asking the prior what it would look like from several.

At each candidate the picture is drowned in noise and the prior takes it out again, told that this is the view. The
error is least where the prior's object looks like the picture. So it needs a prior that knows the object by itself
(`knows_object`, as `oracle` does). A prior that is told views relative to the picture alone is asked in another way
(`dg.stages.elevation_hull`). One that is told the picture's own elevation too fits its views to that, and neither way
works. Measured with `zero123_mini`: by denoising, five objects at -30, -10 and 10 degrees, it answers -10 to 10 with no
relation to the truth; by the hull of its views, for the robot at -40, -20 and 0 degrees, it answers 20, -20 and 20,
from errors of 0.001 to 0.02 (a prior of exact views has 0.06 to 0.12 at the far candidates).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dg.core.diffusion import add_noise, x0_from_eps
from dg.core.picture import over
from dg.core.rng import generator
from dg.priors.protocol import Prior
from dg.types import Reference

CANDIDATES_DEG = (-40.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0)
TIMES = (0.5, 0.7, 0.85, 0.95)  # shares of the schedule: much noise, so that the prior answers and not the picture


@dataclass(frozen=True)
class Found:
    elevation_deg: float
    curve: dict[float, float]  # the error by candidate in degrees


def search(error: Callable[[float], float], candidates: Sequence[float] = CANDIDATES_DEG) -> Found:
    """The candidate with the least error, then halfway to its neighbours, then the parabola's vertex through three.

    Args:
        error: of a candidate, degrees.
        candidates: ascending, equally far apart.
    """
    curve = {e: error(e) for e in candidates}
    best, half = min(curve, key=curve.__getitem__), (candidates[1] - candidates[0]) / 2
    for e in (best - half, best + half):
        curve[e] = error(e)
    best = min(curve, key=curve.__getitem__)
    for e in (best - half, best + half):
        if e not in curve:
            curve[e] = error(e)
    low, middle, high = (curve[e] for e in (best - half, best, best + half))
    bend = low - 2 * middle + high
    vertex = 0.5 * half * (low - high) / bend if bend > 0 else 0.0
    return Found(best + min(max(vertex, -half / 2), half / 2), dict(sorted(curve.items())))


@torch.no_grad()
def denoising_error(prior: Prior, reference: Reference, prompt: str | None = None, seed: int = 0) -> float:
    """Mean squared error, in the prior's space, of the picture that the prior makes of the noised reference.

    Mean over `TIMES`, and over a white and a black background; the same noise for every candidate.
    """
    errors = []
    rgba, cameras = reference.rgba[:1], reference.cameras[:1]
    for level in (0.0, 1.0):
        background = torch.full((1, 3), level, device=rgba.device)
        z = prior.encode(over(rgba, level).permute(0, 3, 1, 2))
        condition = prior.condition(reference, prompt, cameras, background)
        for i, share in enumerate(TIMES):
            t = torch.tensor([round(share * len(prior.alpha_bar)) - 1], device=z.device)
            alpha_bar = prior.alpha_bar.to(z.device)[t].reshape(1, 1, 1, 1)
            noise = torch.randn(z.shape, generator=generator(seed, "elevation", i)).to(z)
            noisy = add_noise(z, noise, alpha_bar)
            clean = x0_from_eps(noisy, prior.predict(noisy, t, condition).cond, alpha_bar)
            errors.append((clean - z).square().mean())
    return float(torch.stack(errors).mean())
