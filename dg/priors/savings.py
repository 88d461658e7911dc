"""What a prior leaves out on request: half of the guidance's work in some steps, or its whole answer for a near view.

All off by default: each of these changes what is distilled, and what that costs in quality is the user's to measure.
Token merging, which changes the network itself, is in `dg.priors.token_merging`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Savings:
    """Attributes:
    guidance_every: the prediction without the condition is made in the first of every so many steps; in the others the
        guided prediction is the conditional one. A network then works on half the batch.
    guidance_above: below this share of the schedule no step is guided. Guidance within an interval of noise levels is
        Kynkaanniemi et al. 2024 (arXiv 2404.07724), which leaves out both ends; this leaves out the clean one.
    reuse: so many times an answer is used again for views in the same cell of the view sphere, on the same background
        and at about the same noise level (`dg.stages.saved_answers`); 0: never. After Hash3D (Yang et al. 2024, arXiv
        2404.06091), which hashes a network's features by view and timestep.
    reuse_deg: side of a cell in degrees of elevation and azimuth.
    """

    guidance_every: int = 1
    guidance_above: float = 0.0
    reuse: int = 0
    reuse_deg: float = 20.0

    def __post_init__(self) -> None:
        if self.guidance_every < 1 or self.reuse < 0:
            raise ValueError(
                f"prior.guidance_every={self.guidance_every} must be at least 1, prior.reuse={self.reuse} at least 0"
            )
        if not 0 <= self.guidance_above <= 1:
            raise ValueError(f"prior.guidance_above={self.guidance_above:g} is a share of the timesteps, in [0, 1]")
        if not 0 < self.reuse_deg <= 180:
            raise ValueError(f"prior.reuse_deg={self.reuse_deg:g} must be in (0, 180]")

    def guided(self, step: int, t: int, num_timesteps: int) -> bool:
        """Whether a step (counted from 1) at timestep t gets a prediction without the condition."""
        return (step - 1) % self.guidance_every == 0 and t >= self.guidance_above * num_timesteps
