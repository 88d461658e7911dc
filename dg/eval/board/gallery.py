"""Per object: the picture, the truth and every method side by side; a click turns a picture into the turning mesh."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from dg.eval.board.notation import heading, number, stage_name
from dg.eval.board.pictures import Plan, Strip, strip
from dg.eval.board.table import Board, Row
from dg.eval.board.webmesh import WebMesh, web_mesh
from dg.eval.records import Record

_MOST = 2 * 2**20  # bytes of one mesh in the page


class Meshes:
    """The meshes of the page, each file once, within a budget."""

    def __init__(self, folder: Path, names: Sequence[str], budget_bytes: int) -> None:
        share = min(_MOST, budget_bytes // max(len(names), 1))
        self._folder = folder
        self.embedded: dict[str, WebMesh] = {}
        self._why: dict[str, str] = {}
        for name in names:
            made = web_mesh(folder / name, share)
            if isinstance(made, WebMesh):
                self.embedded[name] = made
            else:
                self._why[name] = made
        self._ids = {name: f"mesh-{i}" for i, name in enumerate(self.embedded)}

    @classmethod
    def of(cls, folder: Path, boards: Sequence[Board], budget_bytes: int) -> Meshes:
        shown = [
            shown_case(board, row, item) for board in boards for row in board.entries for item in board.cases.items
        ]
        names = dict.fromkeys(record.mesh for record in shown if record is not None and record.mesh)
        return cls(folder, [name for name in names if name], budget_bytes)

    def id(self, name: str | None) -> str:
        return self._ids.get(name or "", "")

    def link(self, name: str) -> str:
        """A link to the file itself, relative to the page, with what the page's version lacks.

        Files outside of the board's folder get none: elsewhere their path means nothing, or tells too much.
        """
        note = self._why.get(name) or (self.embedded[name].note if name in self.embedded else "")
        more = f' <span class="note">{escape(note.replace(str(self._folder), "."))}</span>' if note else ""
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            return more
        kind = escape(path.suffix.lstrip(".").upper() or "mesh")
        return f'<a class="file" href="{quote(path.as_posix())}" download>{kind}</a>{more}'

    def scripts(self) -> str:
        return "\n".join(
            f'<script type="application/gzip" id="{self._ids[name]}">{mesh.base64}</script>'
            for name, mesh in self.embedded.items()
        )


def gallery(folder: Path, board: Board, plan: Plan, meshes: Meshes) -> str:
    cards = "".join(_card(folder, board, item, plan, meshes) for item in board.cases.items)
    number_is = f" The number below a picture is its {escape(heading(board.ranking))}." if board.ranking else ""
    note = f"Click a picture to turn its mesh; of several seeds, the first that came through is shown.{number_is}"
    return f"<h3>Objects</h3><p class=note>{note}</p><div class=cards>{cards}</div>"


def shown_case(board: Board, row: Row, item: str) -> Record | None:
    """The case of the smallest seed that came through; else a failed one; None where there is none."""
    cases = [record for (name, _), record in board.cases.records[row.entry].items() if name == item]
    return min(cases, key=lambda record: (record.failure is not None, record.seed), default=None)


def _card(folder: Path, board: Board, item: str, plan: Plan, meshes: Meshes) -> str:
    found = [record for cases in board.cases.records.values() for (name, _), record in cases.items() if name == item]
    given = next((record.input_picture for record in found if record.input_picture), None)
    truth = next((record.truth_pictures for record in found if record.truth_pictures), ())
    tiles = []
    if (picture := strip(folder, [given] if given else [], plan)) is not None:
        tiles.append(_tile("input", "", picture, "input", "", ""))
    if (picture := strip(folder, truth, plan)) is not None:
        owner = next((record for record in found if record.method == "truth"), None)
        mesh = owner.mesh if owner is not None else None
        tiles.append(_tile("truth", "", picture, "truth", meshes.id(mesh), meshes.link(mesh) if mesh else ""))
    for row in board.entries:
        if row.method == "truth" and row.kind == "reference" and truth:
            continue
        tiles.append(_method_tile(folder, board, row, item, plan, meshes))
    most = max(min(plan.views, len(record.pictures)) for record in found)
    slider = ""
    if most > 1:
        start = 1 if most > 2 else 0  # a three-quarter view says more than the front
        slider = (
            f'<label class="view">view <input type="range" min="0" max="{most - 1}" value="{start}" step="1" '
            f'aria-label="view of {escape(item)}"></label>'
        )
    turn = '<button type="button" class="turn-all">turn all meshes</button>' if meshes.embedded else ""
    return (
        f'<article class="card" data-item="{escape(item)}"><header><h4>{escape(item)}</h4>{slider}{turn}</header>'
        f'<div class="tiles">{"".join(tiles)}</div></article>'
    )


def _method_tile(folder: Path, board: Board, row: Row, item: str, plan: Plan, meshes: Meshes) -> str:
    record = shown_case(board, row, item)
    kind = f"{row.kind} {'final' if row.final else 'other'}"
    if record is None and row.kind == "reference":
        return ""
    if record is None or record.failure is not None:
        reason = next((f.reason for f in row.failures if f.item == item), "no result")
        return _frame(row.method, row.stage, kind, f'<div class="shot failed"><b>failed</b>{escape(reason)}</div>', "")
    score = record.scores.get(board.ranking) if board.ranking else None
    text = ""
    if score is not None and board.ranking is not None:
        text = f'<b title="{escape(heading(board.ranking))}">{number(board.ranking, score)}</b>'
    link = meshes.link(record.mesh) if record.mesh else ""
    return _tile(
        row.method, row.stage, strip(folder, record.pictures, plan), kind, meshes.id(record.mesh), f"{text} {link}"
    )


def _tile(name: str, stage: str, picture: Strip | None, kind: str, mesh: str, facts: str) -> str:
    words = escape(f"{name}, {stage_name(stage)}" if stage else name)
    if picture is None:
        image = '<span class="nothing">no picture</span>'
    else:
        image = f'<img alt="{words}" data-n="{picture.views}" src="{picture.uri}" decoding="async">'
    if mesh:
        shot = (
            f'<button type="button" class="shot" data-mesh="{mesh}" title="turn the mesh" '
            f'aria-label="turn the mesh of {words}">{image}<span class="badge">3D</span></button>'
        )
    else:
        shot = f'<div class="shot">{image}</div>'
    return _frame(name, stage, kind, shot, facts)


def _frame(name: str, stage: str, kind: str, shot: str, facts: str) -> str:
    under = f"<small>{escape(stage_name(stage))}</small>" if stage else ""
    return (
        f'<figure class="tile {escape(kind)}" data-method="{escape(name)}" data-stage="{escape(stage)}">{shot}'
        f"<figcaption><span>{escape(name)}</span>{under}<div class=facts>{facts}</div></figcaption></figure>"
    )
