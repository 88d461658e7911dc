"""What people said about the methods of a board (`dg.eval.human`): columns of their own, which rank nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dg.eval.board.table import Board, Row
from dg.eval.human import Judgement, Opinion, opinions


@dataclass(frozen=True)
class Asked:
    """The questions, in the order they were first asked, and what was said: method -> question -> opinion."""

    questions: tuple[str, ...] = ()
    answers: Mapping[str, Mapping[str, Opinion]] = field(default_factory=dict)

    def said(self, row: Row, question: str) -> Opinion | None:
        """People judge results, so other stages of a method have no opinion."""
        return self.answers.get(row.method, {}).get(question) if row.final else None


def asked(board: Board, judgements: Iterable[Judgement]) -> Asked:
    """Of the board's methods and objects only."""
    mine = [j for j in judgements if j.object in board.cases.items and j.method in board.methods]
    return Asked(tuple(dict.fromkeys(j.question for j in mine)), opinions(mine))


def counted(opinion: Opinion) -> str:
    """ "12 by 6 people"; raters without a name are not counted as people."""
    people = f" by {opinion.raters} people" if opinion.raters > 1 else ""
    return f"{opinion.count}{people}"
