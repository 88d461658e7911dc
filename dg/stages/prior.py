"""Trains `zero123_mini`: reference and camera to noise, on rendered views of the library and of invented objects."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dg.core import rng
from dg.data.training_views import ViewBank, move
from dg.priors import zero123_mini as mini
from dg.priors.mini_net import MiniConfig, MiniNet, preconditioning
from dg.stages.muon import MuonAdam
from dg.stages.prior_batch import draw_backgrounds, network_inputs, spoiled
from dg.stages.report import report


@dataclass(frozen=True)
class Recipe:
    """What one step consists of, and how the weights follow.

    A tenth of the references is withheld (`drop`), which is what classifier-free guidance needs. In a share of the
    pictures (`spoil`) x_t is made from a spoiled x_0 while the true one is to be found: distillation shows the network
    renders of unfinished objects, blurred, off in colour, wrong in shape, and it should pull them to the reference
    instead of explaining them away.
    """

    iters: int = 24000
    references: int = 128
    targets: int = 4  # per reference
    lr: float = 1e-3
    warmup: int = 500
    decay_from: float = 0.0  # share of the training after which the rate falls to zero along a half cosine
    weight_decay: float = 0.05
    ema: float = 0.9995
    drop: float = 0.1
    spoil: float = 0.25
    late: float = 0.8  # t is drawn as 1000 u^late: below 1, late steps (much noise) come more often
    refresh_every: int = 16  # steps between renderings of the next chunk of the bank
    clip: float = 1.0

    def lr_at(self, step: int) -> float:
        frac = max(0.0, step / self.iters - self.decay_from) / (1 - self.decay_from)
        cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, frac))).item())
        return self.lr * min(1.0, step / self.warmup) * max(cosine, 1e-3)


class Denoiser(nn.Module):
    """Encoding of the references and denoising of their targets as one graph, for torch.compile."""

    def __init__(self, net: MiniNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        picture: Tensor,
        ray0: Tensor,
        vector0: Tensor,
        x_t: Tensor,
        t: Tensor,
        alpha_bar_t: Tensor,
        ray: Tensor,
        vector: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self.net(x_t, t, alpha_bar_t, ray, vector, self.net.encode(picture, ray0, vector0))


class PriorStage(L.LightningModule):
    """One training. Draws come from (seed, purpose, step), so a resumed run goes on as the unbroken one would.

    Args:
        bank: makes the bank of views on the training device.
        net: the network's shape, or what makes another network with `MiniNet`'s interface.
        start: a checkpoint of `zero123_mini` to start from; None starts from random weights.
        compile: torch.compile on CUDA devices.
    """

    def __init__(
        self,
        *,
        bank: Callable[[torch.device], ViewBank],
        net: MiniConfig | Callable[[], nn.Module],
        recipe: Recipe,
        seed: int = 0,
        start: str | Path | None = None,
        shift: float = 2.0,
        compile: bool = True,
        log_every: int = 100,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.key(seed, "weights"))
            self.net = net() if callable(net) else MiniNet(net)
        if start is not None:
            self.net.load_state_dict(mini.load(start)[0].state_dict())
        self.recipe, self.seed, self.shift, self.log_every = recipe, seed, shift, log_every
        self.compile_network = compile
        self.make_bank = bank
        self.bank: ViewBank | None = None
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.register_buffer("alpha_bar", mini.shifted_cosine(shift=shift), persistent=False)
        self.step = 0
        self.logged: dict[str, float] = {}
        self.tally = torch.zeros(10, 2)  # summed loss and count by tenths of the schedule
        self.clock = (0, time.monotonic())
        self._run: Callable[..., Any] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        inner = self.net.blocks.named_parameters()
        matrices = [p for name, p in inner if p.ndim == 2 and "modulation" not in name]
        chosen = {id(p) for p in matrices}
        rest = [p for p in self.net.parameters() if id(p) not in chosen]
        return MuonAdam(matrices, rest, self.recipe.lr, weight_decay=self.recipe.weight_decay)

    def on_fit_start(self) -> None:
        self.average = {k: v.to(self.device) for k, v in self.average.items()}
        self.tally = torch.zeros(10, 2, device=self.device)
        if self.bank is None:
            self.bank = self.make_bank(self.device)
            if self.bank.rendered != self.rendered_at(self.step) + self.bank.full:
                self.bank.rendered = self.rendered_at(self.step)
                self.bank.refresh()
        denoiser = Denoiser(self.net)
        use = self.compile_network and self.device.type == "cuda"
        compiled = torch.compile(denoiser) if use else denoiser
        self._run = lambda *inputs: compiled(*inputs)  # hidden from nn.Module: its weights are the network's
        self.clock = (self.step, time.monotonic())

    def rendered_at(self, step: int) -> int:
        """The chunk that the bank's present content begins with: after a full turn more, it is as it was."""
        return step // self.recipe.refresh_every

    def training_step(self, batch: Any, batch_index: int) -> None:
        self.step = int(batch)
        optimizer = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.step)
        if self.step % self.recipe.refresh_every == 0:
            self.bank.refresh(self.bank.chunk)
        loss = self._loss(rng.generator(self.seed, f"batch{self.global_rank or ''}", self.step))
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        optimizer.step()
        self._follow()
        if self.step % self.log_every == 0:
            self._report(float(loss.detach()))

    def _loss(self, generator: torch.Generator) -> Tensor:
        recipe, device = self.recipe, self.device
        batch = self.bank.batch(recipe.references, recipe.targets, generator)
        n = len(batch.targets)
        background = move(draw_backgrounds(n, generator), device)
        dropped = move((torch.rand(recipe.references, generator=generator) < recipe.drop).float(), device)
        inputs = network_inputs(batch, background, dropped, self.net.config)
        t = move(self.times(n, generator), device)
        shown, was_spoiled = spoiled(inputs.x0, recipe.targets, recipe.spoil, generator)
        x0, shown = self.diffused(inputs.x0), self.diffused(shown)
        noise = self._normal(x0.shape, generator)
        alpha_bar = self.alpha_bar[t]
        a2 = alpha_bar[:, None, None, None]
        x_t = a2.sqrt() * shown + (1 - a2).sqrt() * noise
        out, _ = self._run(*inputs.reference, x_t, t.float(), alpha_bar, inputs.rays, inputs.vector)
        skip, scale, _ = preconditioning(alpha_bar)
        error = (out - (x0 - skip * x_t) / scale).square().mean((1, 2, 3))
        weight = self.weight(alpha_bar) * torch.where(
            was_spoiled > 0, (4 * scale.flatten().square()).clamp_max(1), torch.ones_like(error)
        )
        with torch.no_grad():
            bucket = (t * 10 // len(self.alpha_bar)).clamp_max(9)
            self.tally.index_add_(
                0, bucket, torch.stack([error.detach(), torch.ones_like(error)], -1) * (1 - was_spoiled)[:, None]
            )
        return (weight * error).mean()

    def times(self, n: int, generator: torch.Generator) -> Int[Tensor, n]:
        """Each picture's step t, on the CPU: stratified, then shuffled."""
        spread = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        spread = spread[torch.randperm(n, generator=generator)] ** self.recipe.late
        return (spread * len(self.alpha_bar)).long().clamp_max(len(self.alpha_bar) - 1)

    def diffused(self, pictures: Float[Tensor, "B 3 h w"]) -> Tensor:
        """What noise is added to: the pictures themselves."""
        return pictures

    def weight(self, alpha_bar: Float[Tensor, B]) -> Tensor:
        """The weight of a picture's error in F, by its noise; equal weights leave Karras et al.'s loss."""
        return torch.ones_like(alpha_bar)

    def _normal(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Drawn on the device (six million a step are too many for the CPU), seeded from the step all the same."""
        seed = int(torch.randint(2**62, (), generator=generator))
        own = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=own, device=self.device)

    @torch.no_grad()
    def _follow(self) -> None:
        weight = 1 - min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        live = self.net.state_dict()
        torch._foreach_lerp_([self.average[k] for k in live], list(live.values()), weight)

    def _report(self, loss: float) -> None:
        before, then = self.clock
        now = time.monotonic()
        rate = (self.step - before) * self.recipe.references * self.recipe.targets / (now - then)
        by_t = (self.tally[:, 0] / self.tally[:, 1].clamp_min(1)).tolist()
        self.tally.zero_()
        self.clock = (self.step, now)
        values = {f"loss/t{100 * i}": v for i, v in enumerate(by_t)}
        facts = {"loss/total": loss, "pictures_per_s": rate, "lr": self.recipe.lr_at(self.step), **values}
        self.logged = report(self, self.step, facts, "prior")

    def averaged(self) -> nn.Module:
        """A copy of the network with the averaged weights."""
        net = copy.deepcopy(self.net)
        net.load_state_dict(self.average)
        return net.eval().requires_grad_(False)

    def export(self, path: str | Path, **about: object) -> None:
        """Writes the averaged weights as a checkpoint of `zero123_mini`."""
        mini.save(self.averaged(), path, len(self.alpha_bar), self.shift, iters=self.step, seed=self.seed, **about)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["prior_stage"] = {"step": self.step, "average": {k: v.cpu() for k, v in self.average.items()}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.step = checkpoint["prior_stage"]["step"]
        self.average = checkpoint["prior_stage"]["average"]


def steps(iters: int, start: int = 0) -> DataLoader:
    """The numbers of the steps to take."""
    return DataLoader(range(start + 1, iters + 1), batch_size=None)
