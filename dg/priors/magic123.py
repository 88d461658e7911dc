"""`magic123`: several priors at once (Magic123, Qian et al. 2023: a view-conditioned one and a text-to-picture one).

Their latents have different sizes and their schedules differ, so no noise prediction is shared: stage 1 sums one score
distillation loss for each member, every one with its own weight, guidance and range of t. Where one prediction is
needed (stage 2's denoising), the first member answers alone.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from dg.priors.protocol import Prior
from dg.priors.stable_diffusion import StableDiffusion
from dg.priors.zero123 import Zero123
from dg.types import Cameras, Condition, Prediction, Reference


@dataclass(frozen=True)
class Member:
    """Attributes:
    weight: factor on the distillation's own weight.
    guidance_scale: in place of the distillation's; None keeps that.
    t_min, t_max: the annealed t is kept within these shares of the schedule.
    prompted: whether the prompt is for it; Zero123 takes none.
    """

    prior: Prior
    weight: float = 1.0
    guidance_scale: float | None = None
    t_min: float = 0.0
    t_max: float = 1.0
    prompted: bool = True

    def timestep(self, t: int) -> int:
        """The annealed t within the member's range."""
        last = len(self.prior.alpha_bar)
        return min(max(t, round(self.t_min * last)), round(self.t_max * last), last - 1)


def members(prior: Prior) -> Mapping[str, Member]:
    """The priors that stage 1 distils: a joint prior's parts, or the prior itself under the name ""."""
    return getattr(prior, "parts", None) or {"": Member(prior)}


def _member_of(kind: type, *, prompted: bool) -> Callable[..., Member]:
    """A constructor of members, whose signature lists the prior's own options and a member's: configs stay checked."""
    own = ("weight", "guidance_scale", "t_min", "t_max")

    def make(**options: Any) -> Member:
        kept = {key: options.pop(key) for key in own if key in options}
        member = Member(prior=kind(**options), prompted=prompted, **kept)
        if member.weight < 0 or not 0 <= member.t_min <= member.t_max <= 1:
            raise ValueError(
                f"weight={member.weight:g} t_min={member.t_min:g} t_max={member.t_max:g}: a weight is not negative, "
                "and 0 <= t_min <= t_max <= 1"
            )
        return member

    mine = [p.replace(kind=p.KEYWORD_ONLY) for n, p in inspect.signature(Member).parameters.items() if n in own]
    theirs = list(inspect.signature(kind).parameters.values())
    make.__signature__ = inspect.Signature([*theirs, *mine])  # type: ignore[attr-defined]
    hints = typing.get_type_hints(Member) | typing.get_type_hints(kind.__init__)
    make.__annotations__ = {p.name: hints[p.name] for p in (*theirs, *mine)}
    return make


zero123_member = _member_of(Zero123, prompted=False)
stable_diffusion_member = _member_of(StableDiffusion, prompted=True)


class Magic123:
    """Args:
    parts: the members by name; the first one serves as the prior where there can be one alone.
    """

    def __init__(self, *, parts: Mapping[str, Member]) -> None:
        views = {name: member.prior.views_per_sample for name, member in parts.items()}
        if not parts or len(set(views.values())) > 1:
            raise ValueError(
                f"prior.parts must all work on the same number of views, and be at least one; found {views}"
            )
        self.parts = parts
        self.first = next(iter(parts.values()))
        self.alpha_bar, self.image_size = self.first.prior.alpha_bar, self.first.prior.image_size
        self.views_per_sample = self.first.prior.views_per_sample

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """The first member's."""
        return self.first.prior.condition(reference, prompt if self.first.prompted else None, cameras, background)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.first.prior.encode(rgb)

    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.first.prior.decode(z)

    def predict(self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        return self.first.prior.predict(z_t, t, cond)
