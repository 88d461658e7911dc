"""leaderboard.html: one file that needs nothing else, works from disk, and can ask no server for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dg.eval.board.asked import asked
from dg.eval.board.gallery import Meshes, gallery
from dg.eval.board.page_table import board_table, failures_list
from dg.eval.board.pictures import Plan
from dg.eval.board.published import WARNING, Published
from dg.eval.board.table import Board
from dg.eval.human import Judgement

ASSETS = Path(__file__).parent / "assets"


def page(
    folder: Path,
    found: Sequence[Board],
    title: str,
    published: Sequence[Published] = (),
    judgements: Sequence[Judgement] = (),
    *,
    picture_budget_mb: float = 8.0,
    mesh_budget_mb: float = 14.0,
) -> str:
    """The HTML text. Everything that comes from records is escaped; a policy in its head forbids requests.

    Args:
        folder: what the records' pictures and meshes are relative to.
        picture_budget_mb: about what all pictures of the newest boards may take; they get smaller and fewer to fit.
        mesh_budget_mb: what all meshes may take; coarser versions, then links, take the place of larger ones.
    """
    current = [board for board in found if board.newest]
    older = [board for board in found if not board.newest]
    tiles = sum(len(board.cases.items) * (len(board.entries) + 2) for board in current)
    plan = Plan.within(picture_budget_mb, tiles)
    meshes = Meshes.of(folder, current, int(mesh_budget_mb * 2**20))
    body = [_section(board, judgements, gallery(folder, board, plan, meshes)) for board in current]
    if older:
        body.append('<details class="older"><summary>Older versions of the protocols</summary>')
        body.append("<p class=note>Scored under other versions; not comparable with the boards above.</p>")
        body += [_section(board, judgements, "") for board in older]
        body.append("</details>")
    if published:
        body.append(_published(published))
    script = _inline(_asset("board.js"))
    viewer = _inline(_asset("model-viewer.min.js")) if meshes.embedded else ""
    parts = {
        "title": escape(title),
        "lead": _lead(current),
        "style": _asset("board.css"),
        "script": script,
        "scripts": f"{_allow(script)} {_allow(viewer)}",
        "tabs": _tabs(current),
        "body": "\n".join(body),
        "meshes": meshes.scripts(),
        "licences": escape(_asset("THIRD_PARTY.md")),
        "viewer": viewer,  # inert until a mesh is asked for: board.js makes a module of it
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _section(board: Board, judgements: Sequence[Judgement], pictures: str) -> str:
    name, version = escape(board.protocol), escape(board.hash)
    seeds = max(row.seeds for row in board.entries)
    count, day = len(board.cases.items), escape(board.finished[:10])
    facts = f"{count} object{'s' * (count != 1)} · {seeds} seed{'s' * (seeds > 1)} · last result {day}"
    return (
        f'<section class="board" data-protocol="{name}" id="{name}-{version}">'
        f'<h2>{name} <code class="hash" title="hash of the protocol: objects, cameras, metrics and their versions">'
        f"{version}</code></h2><p class=facts>{facts}</p>"
        f"{board_table(board, asked(board, judgements))}{failures_list(board)}{pictures}</section>"
    )


def _lead(current: Sequence[Board]) -> str:
    methods = {row.method for board in current for row in board.rows}
    items = {(board.protocol, item) for board in current for item in board.cases.items}
    cases = sum(row.cases for board in current for row in board.entries)
    failed = sum(len(row.failures) for board in current for row in board.entries)
    counts = [(len(current), "protocol"), (len(methods), "method"), (len(items), "object"), (cases, "scored case")]
    words = [f"<b>{n}</b> {word}{'s' * (n != 1)}" for n, word in counts]
    return " · ".join([*words, f"<b>{failed}</b> failure{'s' * (failed != 1)}"])


def _tabs(current: Sequence[Board]) -> str:
    names = list(dict.fromkeys(board.protocol for board in current))
    options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)
    return f'<option value="">all protocols</option>{options}' if len(names) > 1 else options


def _published(tables: Sequence[Published]) -> str:
    parts = [f'<section class="published" id="published"><h2>As published</h2><p class=warning>{escape(WARNING)}</p>']
    for table in tables:
        head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        parts.append(
            f"<details><summary>{escape(table.title)} <span class=source>{escape(table.source)}</span></summary>"
            f"<p class=note>{escape(table.note)}</p><div class=scroll><table class=plain>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
        )
    return "".join(parts) + "</section>"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _allow(script: str) -> str:
    """What the policy calls a script by: its hash. No other one runs, whatever a record holds."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _inline(script: str) -> str:
    """A script as the content of a script element: what would end the element is written otherwise."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
