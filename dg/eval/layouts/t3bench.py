"""T3Bench: prompts in three groups, and where methods leave their meshes.

    DIR/data/prompt_{single,surr,multi}.txt       one prompt a line, 100 each; or DIR/prompt_*.txt
    DIR/outputs_mesh_t3/METHOD_GROUP/PROMPT_WITH_UNDERSCORES*/save/it*-export/model.obj

Facts from T3Bench's run_eval_quality.py. Its own figures (ImageReward over 162 views at 5 zooms; captions compared by a
language model) need models that are not part of this project; ours are CLIP's and the mesh's own.
"""

from __future__ import annotations

from pathlib import Path

from dg.eval.layouts.asking import given_folder, one_of
from dg.eval.protocol import Item

ORIGIN = "the repository of T3Bench (THU-LYJ-Lab), folder data/"
GROUPS = ("single", "surr", "multi")


def folder_name(prompt: str) -> str:
    """How T3Bench's folders of a prompt begin; threestudio appends the time."""
    return prompt.replace(" ", "_")


def read(root: str | Path | None, groups: tuple[str, ...] | list[str] = GROUPS) -> list[Item]:
    """One item per prompt, named GROUP_000 and so on.

    Raises:
        ValueError: an unknown group, or an empty file.
        FileNotFoundError: a prompt file is missing.
    """
    folder = given_folder(root, "data", "data/prompt_*.txt", ORIGIN)
    items: list[Item] = []
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"groups: {group} is none of {', '.join(GROUPS)}")
        file = f"prompt_{group}.txt"
        path = one_of((folder / "data" / file, folder / file), f"the prompts of group {group}", ORIGIN)
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not prompts:
            raise ValueError(f"{path}: holds no prompts ({ORIGIN})")
        items += [Item(name=f"{group}_{i:03d}", prompt=prompt) for i, prompt in enumerate(prompts)]
    return items
