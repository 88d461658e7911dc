"""What an evaluation leaves for people: the board's files, a summary on the console, a table at W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dg.eval.board.write import FORMATS, Settings, read_settings, write_board
from dg.eval.protocol import Protocol
from dg.eval.records import Record
from dg.io.lock import try_lock
from dg.runtime.errors import UserError
from dg.runtime.evaluation.online import to_wandb
from dg.runtime.logging import log

QUICK = ("md", "csv")  # while the work goes on; the page with its pictures and meshes comes at the end


def publish(
    board: Path, config: dict[str, Any], protocol: Protocol, records: Sequence[Record], final: bool = True
) -> list[Path]:
    """Writes leaderboard.{md,csv,html}; says so and tells W&B when the evaluation is through."""
    with try_lock(board / "work" / "board.lock") as mine:
        if not mine:
            return []  # another worker is at it, with the same records
        human = None if config["human"] is None else Path(config["human"])
        headline, baseline = _settings(board, protocol, records)
        formats = FORMATS if final else QUICK
        try:
            written = write_board(board, headline=headline, baseline=baseline, human=human, formats=formats)
        except (ValueError, OSError) as error:
            raise UserError(f"the board could not be written: {error}") from error
    if final:
        failures = sorted({f"{r.method} · {r.item}" for r in records if r.failure})
        if failures:
            log.warning("%d failed: %s", len(failures), ", ".join(failures[:8]))
        for path in written:
            log.info("%s", path)
        to_wandb(board, config, Settings(headline, baseline))
    return written


def _settings(
    board: Path, protocol: Protocol, records: Sequence[Record]
) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
    """Headline and baseline of every protocol that was ever scored in this folder."""
    old = read_settings(board)
    headline = dict(old.headline) if old is not None and isinstance(old.headline, Mapping) else {}
    baseline = dict(old.baseline) if old is not None and isinstance(old.baseline, Mapping) else {}
    names = sorted({r.method for r in records})
    shown = [n for n in names if n == protocol.baseline or n.startswith(f"{protocol.baseline} (")]  # or with its preset
    chosen = {protocol.name: shown[0]} if shown else {}
    return headline | {protocol.name: protocol.headline}, baseline | chosen
