"""The board at W&B: a table of the summary, one of the cases, and the files as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dg.eval.board.sheets import case_rows, summary_rows
from dg.eval.board.table import boards
from dg.eval.board.write import Settings
from dg.eval.records import read
from dg.runtime.build import build
from dg.runtime.media import is_wandb

FILES = ("records.jsonl", "leaderboard.md", "leaderboard.csv", "objects.csv", "leaderboard.html")


def to_wandb(board: Path, config: Mapping[str, Any], settings: Settings) -> None:
    """With logger=wandb; does nothing otherwise.

    The run's summary holds every method's headline figures, as `METHOD/STAGE/FIGURE`.
    """
    wanted = {name: node for name, node in config["logger"].items() if name == "wandb"}
    for logger in build(wanted, "logger").values():
        if not is_wandb(logger):
            continue
        import wandb

        logger.log_hyperparams(dict(config))
        found = boards(read(board / "records.jsonl"), headline=settings.headline, baseline=settings.baseline)
        for key, (columns, rows) in {"leaderboard": summary_rows(found), "objects": case_rows(found)}.items():
            logger.experiment.log({key: wandb.Table(columns=columns, data=rows)})
        for entry in found[0].entries:
            for figure in found[0].headline:
                value = entry.cells[figure].value
                if value is not None:
                    logger.experiment.summary[f"{entry.method}/{entry.stage}/{figure}"] = value.mean
        artifact = wandb.Artifact("leaderboard", type="leaderboard")
        for name in FILES:
            artifact.add_file(str(board / name))
        logger.experiment.log_artifact(artifact)
        logger.finalize("success")
        wandb.finish()
