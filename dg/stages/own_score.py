"""The score of the renders themselves, learnt beside stage 1: the second half of variational score distillation."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.diffusion import add_noise, per_sample
from dg.core.distill import Predict
from dg.core.distill_particles import VSD, no_adapter
from dg.core.rng import generator
from dg.core.transfer import upload
from dg.priors.protocol import Adapter, Prior
from dg.types import Condition, Prediction


class OwnScore:
    """One adapter and one Adam for each prior that a run distils, by the prior's name among them.

    They are made when first asked for and belong to nobody else: Lightning would count their steps. Each step's t and
    noise come from (seed, purpose, step), so the state is the parameters and Adam's moments.
    """

    def __init__(self, settings: VSD, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.adapters: dict[str, Adapter] = {}
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self._kept: dict[str, Any] = {}  # of a checkpoint, for adapters that are still to be made
        self._seen: dict[str, tuple[Tensor, Condition, Tensor]] = {}

    def beside(self, name: str, prior: Prior, z: Float[Tensor, "B C h w"], cond: Condition) -> Predict:
        """`prior.predict` whose answers hold the renders' own score; `learn` will learn from `z`.

        Raises:
            ValueError: the prior has no adapter; names those that have one.
        """
        adapter = self._adapter(name, prior, z.device)
        self._seen[name] = z.detach(), cond, prior.alpha_bar

        def predict(z_t: Tensor, t: Int[Tensor, B]) -> Prediction:
            told = prior.predict(z_t, t, cond)
            with torch.no_grad():
                return Prediction(told.cond, told.uncond, adapter.predict(z_t, t, cond))

        return predict

    def _adapter(self, name: str, prior: Prior, device: torch.device) -> Adapter:
        if name not in self.adapters:
            if not hasattr(prior, "trainable_adapter"):
                raise ValueError(no_adapter(prior))
            draw = generator(self.seed, f"adapter/init/{name}".rstrip("/"))
            adapter = prior.trainable_adapter(draw, self.settings.adapter_rank)
            adapter.to(device)
            lr = adapter.lr if self.settings.adapter_lr is None else self.settings.adapter_lr
            self.adapters[name], self.optimizers[name] = adapter, torch.optim.Adam(adapter.parameters(), lr=lr)
            if name in self._kept:
                kept = self._kept.pop(name)
                adapter.load_state_dict(kept["adapter"])
                self.optimizers[name].load_state_dict(kept["optimizer"])
        return self.adapters[name]

    def learn(self, step: int) -> dict[str, Tensor]:
        """One step of every adapter towards the noise that it is shown; returns their mean squared errors for the log.

        The error is summed over a picture, not averaged: Adam sees no difference, but the gradients that pass a network
        in half precision would vanish.

        Raises:
            FloatingPointError: an error is not finite; the adapter is as it was before the step.
        """
        errors = {}
        for name, (z, cond, alpha_bar) in self._seen.items():
            suffix = f"/{name}".rstrip("/")
            t = self.settings.trained_at(generator(self.seed, f"adapter/timestep{suffix}", step), len(alpha_bar))
            eps = upload(torch.randn(z.shape, generator=generator(self.seed, f"adapter/noise{suffix}", step)), z.device)
            steps = torch.full((len(z),), t, device=z.device)
            with torch.enable_grad():
                z_t = add_noise(z, eps, per_sample(alpha_bar.to(z.device)[steps], z))
                miss = (self.adapters[name].predict(z_t, steps, cond).float() - eps).square()
                optimizer = self.optimizers[name]
                optimizer.zero_grad(set_to_none=True)
                (miss.sum() / len(z)).backward()
            if not torch.isfinite(miss.sum()):
                raise FloatingPointError(
                    f"stage gaussians, step {step}: the error of the adapter is not finite; lower distill.adapter_lr"
                )
            optimizer.step()
            errors[f"loss/adapter{suffix.replace('/', '_')}"] = miss.detach().mean()
        self._seen.clear()
        return errors

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        made = {
            name: {"adapter": adapter.state_dict(), "optimizer": self.optimizers[name].state_dict()}
            for name, adapter in self.adapters.items()
        }
        return self._kept | made

    def load(self, state: dict[str, Any]) -> None:
        self._kept = dict(state)
        self.adapters.clear()
        self.optimizers.clear()
