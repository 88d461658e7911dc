"""What the prior says of a step's novel views, as a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.diffusion import guide, per_sample, x0_from_eps
from dg.core.distill import Distillation, Predict
from dg.core.distill_particles import VSD
from dg.core.rng import generator
from dg.core.transfer import upload
from dg.priors.cut import encoded
from dg.priors.magic123 import Member, members
from dg.priors.protocol import Prior
from dg.priors.savings import Savings
from dg.stages.own_score import OwnScore
from dg.stages.saved_answers import SavedAnswers, savings_of
from dg.stages.views import NovelView
from dg.types import Cameras, Condition, Prediction, Reference


@dataclass
class Look:
    """What one prior was shown in one step and what it said: `dg.runtime.guidance` makes pictures of it.

    Attributes:
        z: what the prior diffuses; after the backward pass its `grad` is the distillation's.
        z_t, x0: the noisy picture of the last prediction in this step, and the guided estimate of what is behind it.
    """

    prior: Prior
    t: int
    rgb: Float[Tensor, "B 3 H W"]
    z: Float[Tensor, "B C h w"]
    z_t: Float[Tensor, "B C h w"] | None = None
    x0: Float[Tensor, "B C h w"] | None = None

    def along(self, predict: Predict, scale: float) -> Predict:
        """The same predictions, each kept until the next one."""

        def watched(z_t: Tensor, t: Tensor) -> Prediction:
            answer = predict(z_t, t)
            a = per_sample(self.prior.alpha_bar.to(t.device)[t], z_t)
            self.z_t, self.x0 = z_t.detach(), x0_from_eps(z_t, guide(answer.cond, answer.uncond, scale), a).detach()
            return answer

        return watched


class Score:
    """The distillation of every prior that a run has (one, or magic123's parts), summed.

    Attributes:
        saved: answers that are used again, where a prior's `savings` want it.
        own: learns the renders' own score, where the distillation needs it.
        looks: of the step that is being watched, by the prior's name; None: nobody watches, and nothing is kept.
    """

    def __init__(
        self,
        *,
        prior: Prior,
        distill: Distillation,
        anneal: Callable[[float, torch.Generator, int], int],
        reference: Reference | None,
        prompt: str | None,
        seed: int,
    ) -> None:
        self.prior, self.distill, self.anneal = prior, distill, anneal
        self.reference, self.prompt, self.seed = reference, prompt, seed
        self.own = OwnScore(distill, seed) if isinstance(distill, VSD) else None
        self.saved = SavedAnswers()
        self._saving = any(savings_of(m.prior) != Savings() for m in members(prior).values())
        if self._saving and self.own is not None:
            raise ValueError(
                "distill=vsd asks a prior for all of its answers: leave prior.reuse, guidance_every and guidance_above"
            )
        self.looks: dict[str, Look] | None = None
        self._expected: tuple[Cameras, dict[str, Condition]] | None = None

    def expect(
        self, cameras: Cameras, background: Float[Tensor, "B 3"], drawn: tuple[Cameras, Float[Tensor, "B 3"]]
    ) -> None:
        """What the priors are to be told of a step's views, before these are rendered; `drawn`: both on the CPU.

        A rasteriser may wait for a GPU; what is launched before it costs nothing, what comes after keeps the GPU idle.
        """
        conditions = {n: self._condition(m, cameras, background) for n, m in members(self.prior).items()}
        self._expected = cameras, conditions
        if self._saving:
            self.saved.look(*drawn)

    def _condition(self, member: Member, cameras: Cameras, background: Float[Tensor, "B 3"]) -> Condition:
        prompt = self.prompt if member.prompted else None
        return member.prior.condition(self.reference, prompt, cameras, background)

    def _told(self, name: str, member: Member, novel: NovelView) -> Condition:
        if self._expected is not None and self._expected[0] is novel.cameras:
            return self._expected[1][name]
        return self._condition(member, novel.cameras, novel.background)

    def loss(self, step: int, frac: float, novel: NovelView) -> tuple[Tensor, dict[str, Any]]:
        """The loss, and what the log is to say of it."""
        t = self.anneal(frac, generator(self.seed, "timestep", step), len(self.prior.alpha_bar))
        losses = {
            name: self._member(step, name, member, member.timestep(t), novel)
            for name, member in members(self.prior).items()
        }
        logs = {f"loss/score_{name}": loss.detach() for name, loss in losses.items() if name}
        return sum(losses.values()), {"t": t, "resolution": novel.cameras.height} | logs

    def learn(self, step: int) -> dict[str, Tensor]:
        """After the step: what learns beside it does, from the same renders."""
        return {} if self.own is None else self.own.learn(step)

    def _member(self, step: int, name: str, member: Member, t: int, novel: NovelView) -> Tensor:
        """The distillation loss of one prior; a prior that works alone has the name ""."""
        prior, distill = member.prior, self.distill
        if name:
            scale = distill.guidance_scale if member.guidance_scale is None else member.guidance_scale
            distill = replace(distill, weight=distill.weight * member.weight, guidance_scale=scale)
        rgb = novel.render.rgb.clamp(0, 1).permute(0, 3, 1, 2)
        z, on_rgb = encoded(prior, rgb)
        condition = self._told(name, member, novel)
        eps = torch.randn(z.shape, generator=generator(self.seed, f"noise/{name}".rstrip("/"), step))
        predict: Predict = self.saved.predict(name, prior, condition, step, t)
        if self.own is not None:
            predict = self.own.beside(name, prior, z, condition)
        if self.looks is not None:
            z.retain_grad()
            self.looks[name] = Look(prior, t, rgb.detach(), z)
            predict = self.looks[name].along(predict, distill.guidance_scale)
        loss = distill.loss(
            predict,
            z,
            torch.full((len(z),), t, device=z.device),
            upload(eps, z.device).to(z),
            prior.alpha_bar.to(z.device),
            novel.render.alpha.detach().permute(0, 3, 1, 2) if distill.mask is not None else None,
        )
        return on_rgb(loss)
