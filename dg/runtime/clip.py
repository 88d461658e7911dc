"""A CLIP model as config group `clip` describes it, or why it is not to be had: its absence is no mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dg.eval.clip import ClipScorer, Unavailable
from dg.runtime.build import build
from dg.runtime.errors import UserError


def load(node: Mapping[str, Any], device: torch.device) -> ClipScorer | str:
    """The model on `device`, or the reason in one line.

    Raises:
        UserError: a mistake in the node.
    """
    given = {"device": str(device)} if "device" in node else {}  # "auto" is settled
    try:
        return build(node, "clip", **given)
    except UserError as error:
        if isinstance(error.__cause__, Unavailable):
            return " ".join(str(error.__cause__).split())
        raise
