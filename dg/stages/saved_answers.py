"""A prior's answers, used again for near views and at near noise levels (`prior.reuse`).

Noise differs from step to step, so what is kept is not a noise prediction but the picture that it stands for,
x0 = (z_t - sqrt(1 - a) eps) / sqrt(a). Another step's prediction towards the same picture is
eps' = (z_t' - sqrt(a') x0) / sqrt(1 - a'), which is exact where timestep and noise are the same. A step that finds a
picture runs no network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import spherical
from dg.core.diffusion import eps_from_x0, per_sample, x0_from_eps
from dg.core.distill import Predict
from dg.priors.protocol import Prior
from dg.priors.savings import Savings
from dg.types import Cameras, Condition, Prediction

LEVELS = 10  # of noise: answers at timesteps in the same tenth of the schedule are near each other
Cell = tuple[int, ...]


def savings_of(prior: Prior) -> Savings:
    return getattr(prior, "savings", None) or Savings()


class SavedAnswers:
    """Of all priors of a run, by their names."""

    def __init__(self) -> None:
        self._kept: dict[tuple, tuple[list[Tensor], int]] = {}  # x0 with and without the condition; uses that are left
        self._views: tuple[list[tuple[float, float]], list[bool]] = [], []

    def look(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> None:
        """At a step's views as they are drawn: on the CPU, so that nothing waits for a GPU."""
        elevation, azimuth, _ = spherical(cameras)
        self._views = list(zip(elevation.tolist(), azimuth.tolist(), strict=True)), (background[:, 0] > 0.5).tolist()

    def predict(self, name: str, prior: Prior, condition: Condition, step: int, t: int) -> Predict:
        """`prior.predict` of a step with what `prior.savings` leaves out.

        Args:
            t: the step's timestep. Of a distillation that predicts at several, each prediction has answers of its own.
        """
        savings, calls = savings_of(prior), [0]
        guided = savings.guided(step, t, len(prior.alpha_bar)) or not hasattr(prior, "predict_conditional")

        def ask(z_t: Tensor, steps: Tensor) -> Prediction:
            predict = prior.predict if guided else prior.predict_conditional  # type: ignore[attr-defined]
            return predict(z_t, steps, condition)

        if not savings.reuse:
            return ask

        def saved(z_t: Tensor, steps: Tensor) -> Prediction:
            a = per_sample(prior.alpha_bar.to(z_t.device)[steps], z_t)
            key = name, calls[0], guided, t * LEVELS // len(prior.alpha_bar), *self._cells(savings.reuse_deg)
            calls[0] += 1
            pictures, left = self._kept.get(key, ([], 0))
            if left:
                self._kept[key] = pictures, left - 1
                return Prediction(*(eps_from_x0(z_t, x0, a) for x0 in pictures))
            answer = ask(z_t, steps)
            told = [answer.cond] if answer.uncond is None else [answer.cond, answer.uncond]
            self._kept[key] = [x0_from_eps(z_t, eps, a).detach() for eps in told], savings.reuse
            return answer

        return saved

    def _cells(self, side_deg: float) -> tuple[Cell, ...]:
        around = max(round(360 / side_deg), 1)
        views, white = self._views
        return tuple(
            (math.floor(e / side_deg), math.floor((a % 360) / 360 * around) % around, int(w))
            for (e, a), w in zip(views, white, strict=True)
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint: a run that goes on finds what it had."""
        return {"kept": {key: ([x.cpu() for x in pictures], left) for key, (pictures, left) in self._kept.items()}}

    def load(self, state: dict[str, Any], device: torch.device | str) -> None:
        self._kept = {k: ([x.to(device) for x in pictures], left) for k, (pictures, left) in state["kept"].items()}
