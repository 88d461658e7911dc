"""A sweep's pages: table.md and table.csv (every job), paired.md and paired.csv (one key's options compared)."""

from __future__ import annotations

from pathlib import Path

from dg.io.files import write_text
from dg.runtime.errors import UserError
from dg.runtime.experiment import table as comparison
from dg.runtime.sweeping import jobs as found
from dg.runtime.sweeping import paired, table


def write(sweep: Path, over: str | None = None, objective: str | None = None) -> tuple[list[Path], str]:
    """Writes the pages into the sweep's folder; returns their paths and what a person reads.

    Args:
        over: the key whose options are compared (`paired.key_of`).
        objective: the entry of metrics.json by which jobs are ranked; by default the one that the jobs were given.

    Raises:
        UserError: there are no records, or `over` was not varied.
    """
    jobs = found.load(sweep)
    objective = objective or next((j.objective for j in jobs if j.objective), None)
    page = table.markdown(jobs, objective)
    pages = {"table.md": page + "\n", "table.csv": table.to_csv(jobs)}
    key = paired.key_of(jobs, over)
    if key is not None:
        try:
            experiment, lines = paired.compared(jobs, key)
        except UserError as error:  # a sweep without figures has its table all the same
            if over is not None:
                raise
            page += f"\n\n({error})"
        else:
            text = paired.markdown(experiment, lines, jobs)
            pages |= {"paired.md": text + "\n", "paired.csv": comparison.to_csv(lines)}
            page += f"\n\n{text}"
    for name, content in pages.items():
        write_text(sweep / name, content)
    return [sweep / name for name in pages], page
