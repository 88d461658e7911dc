"""`python -m dg.eval.board FOLDER [--readme README.md]`: writes the board of a folder's records.jsonl again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dg.eval.board.markdown import readme_table, replace_between
from dg.eval.board.write import FORMATS, Settings, read_settings, write_board
from dg.eval.records import read
from dg.io.files import write_text


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        for path in run(options):
            print(path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> list[Path]:
    folder: Path = options.folder
    known = read_settings(folder)
    if known is None and not options.headline:
        raise ValueError(f"{folder} has no board.json yet; say --headline FIGURE[,FIGURE...] (the first one ranks)")
    known = known or Settings(())
    headline = tuple(options.headline.split(",")) if options.headline else known.headline
    baseline = options.baseline or known.baseline
    human = options.human or (Path(known.human) if known.human else None)
    if options.readme is None:
        return write_board(
            folder,
            headline=headline,
            baseline=baseline,
            title=options.title or known.title,
            human=human,
            formats=tuple(options.formats.split(",")),
        )
    figures = tuple(options.figures.split(",")) if options.figures else None
    records = read(folder / "records.jsonl")
    table = readme_table(records, headline=headline, baseline=baseline, protocol=options.protocol, figures=figures)
    try:
        text = replace_between(options.readme.read_text(encoding="utf-8"), table)
    except ValueError as error:
        raise ValueError(f"{options.readme}: {error}") from error
    write_text(options.readme, text)
    return [options.readme]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m dg.eval.board", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds records.jsonl")
    parser.add_argument("--readme", type=Path, help="rewrite the table between this file's leaderboard markers instead")
    parser.add_argument("--protocol", help="which board goes into the README (default: the first)")
    parser.add_argument("--figures", help="its columns, separated by commas (default: the headline)")
    parser.add_argument("--headline", help="figures shown first, the first one ranks (default: as last written)")
    parser.add_argument("--baseline", help="method that differences are paired against (default: as last written)")
    parser.add_argument("--human", type=Path, help="CSV file of user studies (default: as last written)")
    parser.add_argument("--title", help="of the board (default: as last written)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="which of md,csv,html to write (default: all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
