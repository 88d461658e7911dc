"""Runs what an experiment still lacks, through evaluate.py, and keeps its records beside the question."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dg.eval import records as store
from dg.eval.board.notation import stage_name
from dg.eval.records import Record
from dg.io.files import write_text
from dg.runtime.errors import UserError
from dg.runtime.experiment import table
from dg.runtime.experiment.definition import OUTDIR, Experiment
from dg.runtime.options import REPOSITORY

log = logging.getLogger("dg")

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SHOWN_VIEW = 1  # of the protocol's views: 45 degrees to the side, where front and hidden side both show


def command(experiment: Experiment, outdir: Path, extra: Sequence[str] = ()) -> list[str]:
    """evaluate.py's command line."""
    methods = ",".join(f"'{entry}'" for entry in experiment.methods())
    return [
        "evaluate.py",
        *experiment.evaluate,
        f"methods=[{methods}]",
        "references=[]",
        f"seeds={list(experiment.seeds)}".replace(" ", ""),
        f"measure=[{','.join(experiment.stages)}]",
        f"outdir={outdir}",
        f"name={experiment.name}",
        *extra,
    ]


def run(experiment: Experiment, outdir: Path, extra: Sequence[str] = ()) -> list[table.Line]:
    """Makes what is missing, then rewrites records, table and picture.

    Cases that records.jsonl beside the experiment holds are not made again: a case is named by a hash over all that
    decides it, so what has changed since is.

    Raises:
        UserError: evaluate.py refused, or nothing came out.
    """
    board = outdir / experiment.name
    _hand_over(experiment, board)
    mine = _made(experiment, outdir, extra)
    _keep(experiment, mine, outdir)
    return report(experiment, outdir)


def smoke(experiment: Experiment, outdir: Path, extra: Sequence[str] = (), *, quiet: bool = False) -> str:
    """Makes `Experiment.smallest` in a folder of its own, leaves what stands beside the question, returns the table.

    Args:
        quiet: what evaluate.py says is shown only where it fails.

    Raises:
        UserError: evaluate.py refused, nothing came out, or a case failed.
    """
    small = experiment.smallest()
    own = [*experiment.smoke, *_figures_alone(experiment), *extra]
    found = table.lines(small, _made(small, outdir / "smoke", own, quiet=quiet))
    failed = sorted({f"{line.block}/{line.variant}".strip("/") for line in found if line.failures})
    if failed:
        raise UserError(f"experiment {experiment.name}: failed: {', '.join(failed)}; see {outdir / 'smoke'}")
    return table.markdown(found, small)


def _figures_alone(experiment: Experiment) -> list[str]:
    """Nothing is measured that the table does not show: half of a small case's time is scoring."""
    metrics = ",".join(dict.fromkeys(f"'{figure.partition('/')[0]}'" for figure in experiment.figures))
    headline = ",".join(f"'{figure}'" for figure in experiment.figures)
    return [f"protocol.metrics=[{metrics}]", f"protocol.headline=[{headline}]"]


def _made(experiment: Experiment, outdir: Path, extra: Sequence[str], *, quiet: bool = False) -> list[Record]:
    """evaluate.py's records, after it has made what they lack."""
    asked = [sys.executable, *command(experiment, outdir, extra)]
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(asked, cwd=REPOSITORY, stdout=pipe, stderr=subprocess.STDOUT if quiet else None, text=True)
    if done.returncode:
        print(done.stdout or "", end="", file=sys.stderr)
        raise UserError(f"experiment {experiment.name}: evaluate.py ended with {done.returncode}; its message is above")
    mine = _own(experiment, store.read(outdir / experiment.name / "records.jsonl"))
    if not table.lines(experiment, mine):
        raise UserError(f"experiment {experiment.name}: no records in {outdir / experiment.name}")
    return mine


def report(experiment: Experiment, outdir: Path | None = None) -> list[table.Line]:
    """Rewrites table.csv and README.md's table from the kept records, and effects*.png where OUTDIR has the pictures.

    Raises:
        UserError: there are none, or README.md has no markers.
    """
    mine = store.read(experiment.records)
    if not mine:
        raise UserError(
            f"experiment {experiment.name} has no records yet: python -m dg.experiment run {experiment.name}"
        )
    found = table.lines(experiment, mine)
    write_text(experiment.folder / "table.csv", table.to_csv(found))
    text = table.markdown(found, experiment)
    readme = experiment.folder / "README.md"
    page = readme.read_text(encoding="utf-8") if readme.is_file() else _blank_page(experiment)
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise UserError(f"{readme.name} of experiment {experiment.name} must hold {BEGIN} and {END}, each once")
    head, tail = page[: page.index(BEGIN)], page[page.index(END) + len(END) :]
    write_text(readme, f"{head}{BEGIN}\n{text}\n{END}{tail}")
    if outdir is not None:
        board = outdir / experiment.name
        effects(experiment, _own(experiment, store.read(board / "records.jsonl")), board)
    print(text)
    return found


def _blank_page(experiment: Experiment) -> str:
    call = f"    python -m dg.experiment run {experiment.name}"
    return f"# {experiment.question}\n\n{call}\n\n{BEGIN}\n{END}\n"


def _own(experiment: Experiment, records: Sequence[Record]) -> list[Record]:
    """This experiment's, in its figures; pictures and versions stay with the board."""
    named = {experiment.method(b, v) for b in experiment.blocks for v in experiment.variants}
    return [r for r in table.newest(records) if r.method in named and r.stage in experiment.stages]


def _keep(experiment: Experiment, records: Sequence[Record], outdir: Path = OUTDIR) -> None:
    """Beside the question, without what `outdir` alone has; commands name the usual one in its place."""
    text = []
    for r in records:
        scores = {name: r.scores.get(name) for name in experiment.figures}
        blanks = {name: why for name, why in r.blanks.items() if name in experiment.figures}
        bare = {"pictures": (), "truth_pictures": (), "mesh": None, "input_picture": None, "versions": {}}
        bare["command"] = r.command.replace(str(outdir.resolve()), str(OUTDIR))
        text.append(json.dumps(asdict(replace(r, scores=scores, blanks=blanks, **bare)), allow_nan=False))
    write_text(experiment.records, "\n".join(text) + "\n")


def _hand_over(experiment: Experiment, board: Path) -> None:
    """Puts the kept records before evaluate.py, which then leaves their cases out."""
    there = {(r.key, r.stage) for r in store.read(board / "records.jsonl")}
    board.mkdir(parents=True, exist_ok=True)
    for record in store.read(experiment.records):
        if (record.key, record.stage) not in there:
            store.append(board / "records.jsonl", record)


def effects(experiment: Experiment, records: Sequence[Record], board: Path) -> list[Path]:
    """effects[_BLOCK].png: variants, and their stages, side by side; a row per shown object, at the first seed.

    An object of which a picture is missing is left out; a block without any leaves its file as it is.
    """
    from dg.eval.overview import Row, overview
    from dg.io.images import read_png, write_png

    made = []
    several = len(experiment.stages) > 1
    columns = [(variant, stage) for variant in experiment.variants for stage in experiment.stages]
    names = [f"{variant}, {stage_name(stage)}" if several else variant for variant, stage in columns]
    pictures = {
        (r.item, r.method, r.stage): board / r.pictures[SHOWN_VIEW]
        for r in records
        if r.seed == experiment.seeds[0] and len(r.pictures) > SHOWN_VIEW
    }
    for block in experiment.blocks:
        rows = []
        for item in experiment.shown:
            files = [pictures.get((item, experiment.method(block, variant), stage)) for variant, stage in columns]
            if all(file is not None and file.is_file() for file in files):
                rows.append(Row(item, "", [read_png(file)[..., :3] for file in files if file is not None]))
        if rows:
            made.append(experiment.folder / (f"effects_{block}.png" if block else "effects.png"))
            write_png(made[-1], overview(block or experiment.name, names, rows, tile=160))
    return made
