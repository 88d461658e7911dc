"""The leaderboard: records.jsonl as Markdown, CSV and one page."""

from dg.eval.board.markdown import readme_table, replace_between
from dg.eval.board.sheets import summary_rows
from dg.eval.board.table import Board, boards
from dg.eval.board.write import write_board

__all__ = ["Board", "boards", "readme_table", "replace_between", "summary_rows", "write_board"]
