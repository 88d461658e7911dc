"""Prompts from files: `prompt=@FILE`, a run for every line as Hydra's own sweep over `prompt` would do it; and captions
beside pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dg.data.captions import caption_for
from dg.runtime.compose import parse
from dg.runtime.errors import UserError
from dg.runtime.options import reads_both, slug
from dg.runtime.pictures import paths

MARK = "prompt=@"


def expand(overrides: Sequence[str]) -> tuple[list[str], bool]:
    """(the overrides with the file's prompts in place of its name, whether there are several).

    Empty lines and lines that begin with # are left out.

    Raises:
        UserError: the file cannot be read or holds no prompts; two of them are the same or begin alike, so that their
            runs would share a folder.
    """
    expanded, several = [], False
    for override in overrides:
        if override.startswith(MARK):
            prompts = read(Path(override.removeprefix(MARK)).expanduser())
            override = f"prompt={','.join(map(quoted, prompts))}"
            several |= len(prompts) > 1
        expanded.append(override)
    return expanded, several


def read(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompt=@{path}: cannot be read as text ({type(error).__name__})") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise UserError(f"prompt=@{path}: holds no prompts; it takes one in each line")
    named: dict[str, str] = {}
    for prompt in prompts:
        other = named.setdefault(slug(prompt), prompt)
        if other is not prompt:
            raise UserError(
                f"prompt=@{path}: '{other}' and '{prompt}' would share the folder {slug(prompt)}; "
                "run one of them by itself, with a name="
            )
    return prompts


def quoted(text: str) -> str:
    """As Hydra's grammar reads it back.

    Raises:
        UserError: it cannot say this text.
    """
    mark = '"' if "'" in text and '"' not in text else "'"
    body = text.replace(mark, f"\\{mark}")
    found = f"{mark}{body}{mark}"
    try:
        (back,) = parse([f"prompt={found}"])
        same = back.value() == text and "${" not in text
    except UserError:
        same = False
    if not same:
        raise UserError(f"the prompt {text!r} cannot be passed on; leave out backslashes and ${{")
    return found


def caption(config: Mapping[str, Any]) -> str | None:
    """The text of NAME_caption.txt beside NAME_rgba.png, for a prior that reads a prompt with its picture; else None.

    Args:
        config: resolved. A prompt of its own goes first, an empty one too (`prompt=''` is a run without the caption).

    Raises:
        UserError: the caption cannot be read.
    """
    files = paths(config) if config["task"]["kind"] == "image" and config["prompt"] is None else []
    if not files or not reads_both(config["prior"]):
        return None
    try:
        return caption_for(files[0])
    except (OSError, ValueError) as error:
        raise UserError(f"prompt: {error}") from error
