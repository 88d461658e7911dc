"""guidance/step_*.png: what the prior is shown, what it believes, and where its gradient pulls. For debugging."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from dg.eval.overview import Row, overview
from dg.io.images import write_png
from dg.runtime.media import send_pictures
from dg.runtime.run import Run
from dg.stages.score import Look

COLUMNS = ("render", "noisy", "x0", "gradient")
SHARE = 0.1  # the step that shows the gradient, relative to the picture's own root mean square
CONTRAST = 0.99  # of the absolute values, what becomes black or white


class Guidance(L.Callback):
    """A strip for every view of stage 1's step, every `every` steps and at the last, in the run's folder and to the
    loggers that show pictures. Such a step keeps what passes by and decodes it; no further prediction is made.
    """

    def __init__(self, run: Run, iters: int, every: int, size: int) -> None:
        self.run, self.iters, self.every, self.size = run, iters, every, size

    @staticmethod
    def wanted(run: Run, stage: str, iters: int) -> list[Guidance]:
        """One where `preview.guidance_every` asks for it in stage 1."""
        if stage != "gaussians":
            return []
        options = run.part("preview")
        return [Guidance(run, iters, options.guidance_every, options.size)] if options.guidance_every else []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        step = int(batch)
        pl_module.score.looks = {} if step % self.every == 0 or step == self.iters else None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        looks, pl_module.score.looks = pl_module.score.looks, None
        if not looks:
            return
        strip = sheet(looks, pl_module.step, self.size)
        write_png(self.run.folder / "guidance" / f"step_{pl_module.step:05d}.png", strip)
        send_pictures(self.run.loggers, {"train/guidance": strip}, pl_module.step)


def sheet(looks: dict[str, Look], step: int, tile: int) -> Float[Tensor, "H W 3"]:
    """A row for every view of every prior."""
    rows = []
    for name, look in looks.items():
        columns = pictures(look)
        for view in range(len(look.rgb)):
            label = name or type(look.prior).__name__
            label += f" {view + 1}" if len(look.rgb) > 1 else ""
            rows.append(Row(label, f"t = {look.t}", [columns[c][view].permute(1, 2, 0) for c in COLUMNS]))
    return overview(f"step {step}", COLUMNS, rows, tile=tile)


@torch.no_grad()
def pictures(look: Look) -> dict[str, Float[Tensor, "B 3 h w"]]:
    """In [0, 1]: the render, and decoded the noisy picture z_t, the estimate behind it, and the gradient.

    The gradient g on z is shown as the change that a step against it makes, (D(z - h g) - D(z + h g)) / 2 around grey,
    at the contrast that its largest values need: brighter is where it wants more light. h g is a tenth as large as z.
    """
    z, decode = look.z.detach(), look.prior.decode
    grad = torch.zeros_like(z) if look.z.grad is None else look.z.grad
    step = SHARE * rms(z) / rms(grad).clamp_min(1e-12)
    change = (decode(z - step * grad) - decode(z + step * grad)) / 2
    found = {"render": look.rgb, "noisy": decode(look.z_t), "x0": decode(look.x0), "gradient": around_grey(change)}
    return {name: picture.float().clamp(0, 1).cpu() for name, picture in found.items()}


def rms(x: Tensor) -> Tensor:
    """Root mean square."""
    return x.float().square().mean().sqrt()


def around_grey(change: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
    """0 becomes 1/2; the quantile `CONTRAST` of the absolute values becomes 0 or 1."""
    size = change.float().abs().flatten()
    largest = size.kthvalue(max(1, int(CONTRAST * size.numel()))).values
    return 0.5 + 0.5 * change.float() / largest.clamp_min(1e-12)
