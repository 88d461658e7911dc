"""The board at W&B, read back from what an offline run leaves."""

from __future__ import annotations

import json
from pathlib import Path

from dg.eval.board.write import Settings, write_board
from dg.runtime.evaluation.online import FILES, to_wandb
from tests.eval.board_records import BASELINE, HEADLINE, records, write
from tests.offline_wandb import read


def test_a_board_is_two_tables_and_an_artifact(tmp_path: Path) -> None:
    board = tmp_path / "board"
    write(board, records())
    write_board(board, headline=HEADLINE, baseline=BASELINE)
    node = {"_target_": "dg.runtime.logging.wandb_logger", "save_dir": str(tmp_path), "project": "p", "mode": "offline"}
    to_wandb(board, {"logger": {"wandb": node}, "seeds": [0]}, Settings(HEADLINE, BASELINE))
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    rows, config = read(run)
    logged = {key: value for row in rows for key, value in row.items()}
    assert logged["leaderboard._type"] == logged["objects._type"] == "table-file" and config["seeds"] == [0]
    content = json.loads((run / "files" / logged["leaderboard.path"]).read_text())
    assert {"method", "figure", "mean"} <= set(content["columns"])
    assert logged["leaderboard.nrows"] == len(content["data"]) > 20
    assert logged["objects.nrows"] == len({(r.method, r.stage, r.item, r.seed) for r in records()})
    assert all((board / name).is_file() for name in FILES)


def test_other_loggers_get_nothing(tmp_path: Path) -> None:
    to_wandb(tmp_path, {"logger": {}}, Settings(HEADLINE))  # reads no file
    assert not list(tmp_path.iterdir())
