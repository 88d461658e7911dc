"""One case: made, measured, written down. Whatever goes wrong becomes a record too."""

from __future__ import annotations

import logging
import platform
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dg.eval.figures import worst_scores
from dg.eval.placement import turned
from dg.eval.protocol import Item, Protocol, Result
from dg.eval.records import Record, append
from dg.eval.scoring import Scores, score
from dg.io.files import shown
from dg.io.images import write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.runtime.errors import Interrupted, UserError
from dg.runtime.evaluation.made import Made, Method, checksum, item_checksum
from dg.runtime.logging import log, to_file
from dg.runtime.manifest import git_revision, now

ATTEMPTS = 2


@dataclass(frozen=True)
class Case:
    method: Method
    item: Item
    seed: int
    key: str
    identity: str  # of the method
    content: str  # checksum of the item
    place: Path  # run folder, below the board's

    @property
    def label(self) -> str:
        return f"{self.method.name} · {self.item.name}" + (f" · seed {self.seed}" if self.seed else "")


def cases(
    protocol_hash: str, items: Sequence[Item], methods: Sequence[Method], seeds: Sequence[int], board: Path
) -> list[Case]:
    """Every method on every item with every seed, as far as it applies; references run with the first seed alone."""
    sums = {item.name: item_checksum(item) for item in items}
    found = []
    for method in methods:
        identity = method.identity()
        for seed in seeds if method.kind == "ours" else seeds[:1]:
            for item in (i for i in items if method.applies(i)):
                key = checksum([protocol_hash, sums[item.name], method.name, identity, seed])
                place = board / "runs" / _safe(method.name) / f"{_safe(item.name)}-{seed}-{key[:6]}"
                found.append(Case(method, item, seed, key, identity, sums[item.name], place))
    return found


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-=+," else "_" for c in name)


@dataclass
class Judge:
    """Makes, scores and records cases.

    Attributes:
        board: the folder of records.jsonl.
        measure: which of a method's stages are scored.
        raster, splat_raster, scorers: what `dg.eval.scoring.score` draws with, and its CLIP models.
        absent: CLIP model -> why it is not there.
    """

    protocol: Protocol
    protocol_hash: str
    board: Path
    measure: Sequence[str]
    raster: Any
    splat_raster: Any
    scorers: Sequence[Any] = ()
    absent: dict[str, str] | None = None

    @cached_property
    def _revision(self) -> str | None:
        """Of the code that this process has loaded, so asked for once."""
        revision, modified = git_revision()
        return None if revision is None else revision[:12] + ("+changes" if modified else "")

    def stages(self, case: Case) -> list[str]:
        stages = case.method.stages(case.item)
        return [s for s in stages if s in self.measure] or list(stages)

    def settle(self, case: Case, deaths: int, too_many: int, anew: bool = False) -> list[Record]:
        """Makes the case, tries once more if that fails, and appends one record per stage.

        Args:
            deaths: processes that ended at it without a word; `too_many` of them are a failure.
            anew: even if the method finds its results in the folder.
        """
        made, attempts = self._made(case, deaths, too_many, anew)
        records = [self._record(case, stage, made, attempts) for stage in self.stages(case)]
        for record in records:
            append(self.board / "records.jsonl", record)
        return records

    def _made(self, case: Case, deaths: int, too_many: int, anew: bool) -> tuple[Made, int]:
        if deaths >= too_many:
            return Made({}, failure=f"the process ended {deaths} times while at it (out of memory?)"), deaths
        failure = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return case.method.make(case.item, case.seed, case.place, again=anew or attempt > 1), attempt
            except (Interrupted, KeyboardInterrupt):
                raise
            except Exception as error:
                failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
                to_file(logging.ERROR, f"{case.label}\n{''.join(traceback.format_exception(error))}")
                if isinstance(error, UserError):  # trying again cannot mend it
                    return Made({}, failure=failure), attempt
                if attempt < ATTEMPTS:
                    log.warning("%s failed (%s); once more from the start", case.label, failure[:200])
        return Made({}, failure=failure), ATTEMPTS

    def _record(self, case: Case, stage: str, made: Made, attempts: int) -> Record:
        result = made.results.get(stage)
        record = self._blank(case, stage, made, attempts)
        if result is None:
            return self._failed(case, record, made.failure or f"it left no {stage}")
        try:
            scores = score(result, case.item, self.protocol, self.raster, self.splat_raster, self.scorers)
        except (KeyboardInterrupt, Interrupted):
            raise
        except Exception as error:
            to_file(logging.ERROR, f"{case.label}\n{''.join(traceback.format_exception(error))}")
            return self._failed(case, record, f"{type(error).__name__}: {' '.join(str(error).split())}")
        values = {name: _rounded(value) for name, value in scores.values.items()} | made.costs.get(stage, {})
        blanks = {name: self._why(name, reason) for name, reason in scores.blanks.items()}
        pictures, truth = self._pictures(case, stage, scores)
        return replace(
            record,
            scores=values,
            blanks=blanks,
            failure=None,
            pictures=pictures,
            truth_pictures=truth,
            mesh=self._mesh(result, case, stage),
        )

    def _why(self, figure: str, reason: str) -> str:
        """Scoring knows only that a CLIP model is not loaded; here is known why."""
        models = (why for model, why in (self.absent or {}).items() if f"/{model}" in figure)
        return next(models, reason)

    def _failed(self, case: Case, record: Record, reason: str) -> Record:
        log.warning("%s: %s failed: %s", case.label, record.stage, reason[:300])
        loaded = [scorer.name for scorer in self.scorers]
        values, blanks = worst_scores(self.protocol, case.item, record.stage, loaded=loaded)
        return replace(record, scores=values, blanks=blanks, failure=reason)

    def _blank(self, case: Case, stage: str, made: Made, attempts: int) -> Record:
        return Record(
            key=case.key,
            protocol=self.protocol.name,
            protocol_hash=self.protocol_hash,
            item=case.item.name,
            method=case.method.name,
            stage=stage,
            seed=case.seed,
            kind=case.method.kind,
            scores={},
            attempts=attempts,
            command=made.command,
            config=case.identity,
            revision=self._revision,
            machine=f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
            device=made.device,
            licence=case.method.licence,
            versions=made.versions,
            finished=now(),
            input_picture=None if case.item.image is None else shown(case.item.image.resolve(), self.board),
        )

    def _pictures(self, case: Case, stage: str, scores: Scores) -> tuple[tuple[str, ...], tuple[str, ...]]:
        def written(folder: Path, rgb: torch.Tensor) -> tuple[str, ...]:
            paths = [folder / f"{i:03d}.png" for i in range(len(rgb))]
            for path, picture in zip(paths, rgb, strict=True):
                if folder.name != "truth" or not path.is_file():
                    write_png(path, picture.clamp(0, 1))
            return tuple(str(p.relative_to(self.board)) for p in paths)

        ours = written(self.board / "pictures" / case.key / stage, scores.rgb)
        if scores.truth_rgb is None:
            return ours, ()
        folder = self.board / "pictures" / self.protocol_hash / case.content / "truth"
        return ours, written(folder, scores.truth_rgb)

    def _mesh(self, result: Result, case: Case, stage: str) -> str | None:
        """The mesh as the board shows it: below the board's folder, in our frame."""
        if result.mesh is None:
            return None
        inside = result.mesh.resolve().is_relative_to(self.board.resolve())
        if inside and result.axes is None:
            return shown(result.mesh, self.board)
        path = self.board / "meshes" / f"{case.key}-{stage}.glb"
        mesh = load_mesh(result.mesh)
        save_mesh(mesh if result.axes is None else turned(mesh, result.axes), path)
        return shown(path, self.board)


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.7g}")
