"""One short training of one variant, by the clock."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dg.core import rng
from dg.data.training_views import ViewBank
from dg.priors.mini_net import DATA_RMS
from dg.stages.prior import Denoiser, PriorStage, Recipe
from experiments.prior_design import autoencoder
from experiments.prior_design.variants import Variant

LR, WARMUP = 1.5e-3, 200  # steps, or a tenth of the time, whichever is over first
DECAY_FROM = 0.5  # share of the time after which the rate falls to zero along a half cosine
AUTOENCODER_SHARE = 1 / 6  # of a latent variant's time
AHEAD = 4  # steps that the processor may be ahead of the device
TELL_FROM = 0.75  # the losses by t are those of the last quarter


@dataclass(frozen=True)
class Budget:
    """What every variant gets."""

    seconds: float
    references: int
    targets: int
    seed: int
    compile: bool
    warm: int  # steps before the clock starts


@dataclass(frozen=True)
class Trained:
    """What came out of a probe, besides the network."""

    seconds: float  # by the clock, an autoencoder's included
    warm_seconds: float  # before the clock: compilation
    steps: int
    pictures: int
    pictures_per_s: float
    loss_by_t: list[float | None]  # by tenths of the variant's own schedule
    autoencoder_psnr: float | None
    peak_gb: float | None


def recipe(variant: Variant, budget: Budget) -> Recipe:
    """The shipped weights' recipe; a variant that denoises groups of targets gets as many pictures in such groups."""
    references, targets = budget.references, budget.targets
    if variant.group > 1:
        pictures = references * targets
        references, targets = max(1, pictures // variant.group), variant.group
    return Recipe(
        references=references, targets=targets, lr=LR, drop=0.05, spoil=0.2, late=0.6,
        refresh_every=2**40, ema=0.9995,
    )  # fmt: skip


def rate(part: float, step: int) -> float:
    """The learning rate at a share of the time."""
    rise = min(1.0, max(step / WARMUP, part / 0.1))
    fall = max(0.0, part - DECAY_FROM) / (1 - DECAY_FROM)
    return LR * rise * max(0.5 * (1 + math.cos(math.pi * fall)), 1e-3)


class ProbeStage(PriorStage):
    """`PriorStage` without Lightning's loop, and with what the variants change in its loss."""

    def __init__(self, variant: Variant, budget: Budget, bank: ViewBank) -> None:
        super().__init__(
            bank=lambda device: bank, net=variant.build, recipe=recipe(variant, budget), seed=budget.seed,
            shift=variant.shift, compile=budget.compile,
        )  # fmt: skip
        self.variant, self.budget = variant, budget
        self.to(bank.device)
        self.bank = bank
        self.average = {k: v.to(bank.device) for k, v in self.average.items()}
        self.tally = torch.zeros(10, 2, device=bank.device)
        denoiser = Denoiser(self.net)
        compiled = torch.compile(denoiser, dynamic=False) if budget.compile else denoiser
        self._run = lambda *inputs: compiled(*inputs)
        self.code: autoencoder.Autoencoder | None = None

    def times(self, n: int, generator: torch.Generator) -> Int[Tensor, n]:
        group = self.variant.group
        return super().times(n // group, generator).repeat_interleave(group)

    def diffused(self, pictures: Float[Tensor, "B 3 h w"]) -> Tensor:
        return pictures if self.code is None else self.code.encode(pictures)

    def decoded(self, z: Tensor) -> Float[Tensor, "B 3 h w"]:
        return (z if self.code is None else self.code.decode(z)).clamp(-1, 1)

    def weight(self, alpha_bar: Float[Tensor, B]) -> Tensor:
        """For the epsilon loss: |d eps|^2 = (a / s)^2 |d x_0|^2, and d x_0 = c_out d F with c_out = d s / q."""
        if not self.variant.epsilon_loss:
            return super().weight(alpha_bar)
        signal = alpha_bar * DATA_RMS**2
        return signal / (signal + 1 - alpha_bar)

    def one(self, step: int) -> Tensor:
        """Loss and gradients of a step."""
        device = self.bank.device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = self._loss(rng.generator(self.seed, "probe", step))
        loss.backward()
        return loss

    def warm(self) -> None:
        """Compiles and allocates: whole steps whose learning rate is zero, so that nothing is learned."""
        optimizer = self.configure_optimizers()
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        for step in range(self.budget.warm):
            self.one(step)
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
            optimizer.step()
            self._follow()
            optimizer.zero_grad(set_to_none=True)
        self.tally.zero_()
        wait(self.bank.device)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train(variant: Variant, budget: Budget, bank: ViewBank, say: Callable[[str], None]) -> tuple[ProbeStage, Trained]:
    """Warms up, then trains until the time is over."""
    device, before = bank.device, time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stage, code, quality, spent = ProbeStage(variant, budget, bank), None, None, 0.0
    if variant.latent:
        code = autoencoder.Training(
            variant.latent, bank, max(2, budget.references * budget.targets // 3), budget.seed, budget.compile
        )
        code.warm(budget.warm)
        stage.code = code.net
    stage.warm()
    warm_seconds = time.monotonic() - before
    say(f"warm after {warm_seconds:.0f} s, {parameters(stage.net) / 1e6:.1f} M parameters")
    if code is not None:
        began = time.monotonic()
        code.net.train().requires_grad_(True)
        quality = code.run(budget.seconds * AUTOENCODER_SHARE)
        spent = time.monotonic() - began
        say(f"autoencoder {quality:.2f} dB after {spent:.0f} s")
    steps, gone = _loop(stage, budget.seconds - spent, say)
    per_step = stage.recipe.references * stage.recipe.targets
    sums = stage.tally.tolist()
    return stage, Trained(
        seconds=round(gone + spent, 2),
        warm_seconds=round(warm_seconds, 2),
        steps=steps,
        pictures=steps * per_step,
        pictures_per_s=round(steps * per_step / gone, 1),
        loss_by_t=[round(total / n, 5) if n else None for total, n in sums],
        autoencoder_psnr=None if quality is None else round(quality, 3),
        peak_gb=round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None,
    )


def _loop(stage: ProbeStage, seconds: float, say: Callable[[str], None]) -> tuple[int, float]:
    """Steps until `seconds` are over. Returns how many, and the seconds they took."""
    device, optimizer = stage.bank.device, stage.configure_optimizers()
    queued: deque[torch.cuda.Event] = deque()
    start, step, part, told, telling = time.monotonic(), 0, 0.0, 0.0, False
    while part < 1:
        step += 1
        stage.step = step
        if part >= TELL_FROM and not telling:
            telling = True
            stage.tally.zero_()
        for group in optimizer.param_groups:
            group["lr"] = rate(part, step)
        loss = stage.one(step)
        torch.nn.utils.clip_grad_norm_(stage.net.parameters(), stage.recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage._follow()
        if device.type == "cuda":
            queued.append(torch.cuda.Event())
            queued[-1].record()
            if len(queued) > AHEAD:
                queued.popleft().synchronize()
        part = min(1.0, (time.monotonic() - start) / seconds)
        if part >= told + 0.1 or part == 1:
            told = part
            pictures = step * stage.recipe.references * stage.recipe.targets
            per_s = pictures / (time.monotonic() - start)
            say(f"{100 * part:3.0f} %  step {step}  {per_s:.0f}/s  loss {float(loss.detach()):.4f}")
    wait(device)
    return step, time.monotonic() - start


def with_fallbacks(
    variant: Variant, budget: Budget, bank: ViewBank, say: Callable[[str], None]
) -> tuple[ProbeStage, Trained, dict]:
    """`train`; where memory doesn't suffice, with half the references; where compilation fails, without it.

    Returns:
        Also what was changed and why, for the record.
    """
    changed: dict[str, object] = {"compiled": budget.compile, "references": budget.references}
    while True:
        try:
            return *train(variant, budget, bank, say), changed
        except torch.cuda.OutOfMemoryError as error:
            if budget.references < 8:
                raise
            reason, budget = str(error).splitlines()[0], replace(budget, references=budget.references // 2)
            changed |= {"references": budget.references, "out_of_memory": reason[:200]}
        except Exception as error:
            if not budget.compile:
                raise
            reason, budget = f"{type(error).__name__}: {error}".splitlines()[0], replace(budget, compile=False)
            changed |= {"compiled": False, "compile_failure": reason[:200]}
        say(f"again: {changed}")
        release()


def release() -> None:
    """Frees what a variant left: graphs, memory, and the shapes that the compiler remembers."""
    import gc

    import torch._dynamo

    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
