"""What W&B and TensorBoard get beside numbers: renders while a stage runs; turntable, overview, mesh at its end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from jaxtyping import Float
from torch import Tensor

from dg.io.images import read_png, to_uint8
from dg.runtime.logging import log
from dg.runtime.run import Run

NOVEL_DEG = 135.0  # azimuth of the novel view: half from behind, where the known view says nothing
PREFIXES = {"gaussians": "train", "texture": "refine"}  # as the stages name their numbers


def is_wandb(logger: Any) -> bool:
    return type(logger).__name__ == "WandbLogger"


def is_tensorboard(logger: Any) -> bool:
    return type(logger).__name__ == "TensorBoardLogger"


def send_pictures(loggers: Iterable[Any], pictures: Mapping[str, Float[Tensor, "H W 3"]], step: int | None) -> None:
    """Pictures in [0, 1] to every logger that can show them, under their keys."""
    for logger in loggers:
        if is_wandb(logger):
            import wandb

            named = {key: wandb.Image(to_uint8(picture)) for key, picture in pictures.items()}
            logger.log_metrics(named, step=step)
        elif is_tensorboard(logger):
            for key, picture in pictures.items():
                logger.experiment.add_image(key, to_uint8(picture), step, dataformats="HWC")


def send_results(logger: Any, folder: Path, mesh: Path | None) -> None:
    """Overview, turntable and final mesh of a run folder, as far as they are there.

    Args:
        mesh: the final mesh in any format; W&B gets it as GLB, the only one it shows with its texture.
    """
    if (folder / "overview.png").is_file():
        send_pictures([logger], {"overview": read_png(folder / "overview.png")[..., :3]}, None)
    if not is_wandb(logger):
        return
    import wandb

    if (folder / "turntable.mp4").is_file():
        logger.experiment.log({"turntable": wandb.Video(str(folder / "turntable.mp4"), format="mp4")})
    if mesh is not None:
        with _as_glb(mesh) as path:
            logger.experiment.log({"mesh": wandb.Object3D(str(path))})


@contextmanager
def _as_glb(mesh: Path) -> Iterator[Path]:
    """The mesh as a GLB file; a temporary one, which W&B copies, where the run made another format."""
    if mesh.suffix == ".glb":
        yield mesh
        return
    from dg.io.mesh import load_mesh, save_mesh

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.glb"
        save_mesh(load_mesh(mesh), path)
        yield path


class Renders(L.Callback):
    """The known view and a novel one, every `every` steps and after the last, to the loggers that show pictures."""

    def __init__(self, run: Run, stage: str, iters: int, every: int, size: int) -> None:
        self.run, self.prefix, self.iters, self.every, self.size = run, PREFIXES[stage], iters, every, size

    @staticmethod
    def wanted(run: Run, stage: str, iters: int) -> list[Renders]:
        """One where a logger shows pictures, `preview.log_every` asks for them and the stage has something to show."""
        if stage not in PREFIXES or not any(is_wandb(x) or is_tensorboard(x) for x in run.loggers):
            return []
        options = run.part("preview")
        return [Renders(run, stage, iters, options.log_every, options.size)] if options.log_every else []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.step % self.every == 0 or pl_module.step == self.iters:
            send_pictures(self.run.loggers, self.pictures(pl_module), pl_module.step)

    def pictures(self, module: Any) -> dict[str, Float[Tensor, "H W 3"]]:
        from dg.core.gaussians import activate
        from dg.runtime.preview import Subject

        splats = activate(module.raw()) if hasattr(module, "raw") else None
        subject = Subject.of(self.run, splats, None if splats is not None else module.mesh())
        (render,) = subject.kinds.values()
        cameras = {"novel": subject.cameras([NOVEL_DEG], self.size)}
        if subject.reference is not None:
            known = subject.reference.cameras[[0]].resized(self.size, self.size)
            cameras["reference"] = known.to(subject.device)
        return {f"{self.prefix}/render/{name}": render(camera)[0, ..., :3] for name, camera in cameras.items()}


def close_loggers(run: Run, mesh: Path | None) -> None:
    """Sends the final figures and pictures and ends W&B's run: the next job of a multirun is another one.

    Never raises: what a logger cannot take is said, and the run's own files are there already.
    """
    done = run.manifest.status == "done"
    for logger in vars(run).get("loggers", ()):
        try:
            logger.log_metrics({k: float(v) for k, v in run.results.items() if isinstance(v, (int, float))})
            send_results(logger, run.folder, mesh)
            logger.finalize("success" if done else "failed")
        except Exception as error:
            log.warning("%s: %s", type(logger).__name__, " ".join(str(error).split())[:200])
        finally:
            if is_wandb(logger):
                import wandb

                wandb.finish(exit_code=0 if done else 1)
