"""Overlays of conf/ablation: what each one's file names, and which do not go together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dg.runtime.errors import UserError

GROUP = "ablation"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overlay:
    """Attributes:
    about: the comment at the head of the file: what it asks, and where the question comes from.
    swaps: config group -> the option that takes its place.
    keys: the dotted keys that get another value.
    """

    name: str
    about: str
    swaps: Mapping[str, str]
    keys: tuple[str, ...]


def read(path: Path) -> Overlay:
    """The overlay of a file.

    Raises:
        ValueError: the file does more than swap options and set keys.
    """
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    swaps = dict(_swap(entry, path) for entry in content.pop("defaults", []) if entry != "_self_")
    head = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    about = " ".join(line for line in head if not line.startswith("@package"))
    return Overlay(path.stem, about, swaps, tuple(leaves(content)))


def _swap(entry: Any, path: Path) -> tuple[str, str]:
    key, option = next(iter(entry.items())) if isinstance(entry, Mapping) else ("", None)
    if not key.startswith("override /") or not isinstance(option, str):
        raise ValueError(f"{path.name}: an overlay's defaults may only hold `override /GROUP: OPTION`, not {entry}")
    return key.removeprefix("override /"), option


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all that is no non-empty mapping."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def clash(overlays: Sequence[Overlay]) -> tuple[str, str, str] | None:
    """(one, the other, what both change) of the first two that would overwrite each other; None if there are none."""
    for a, b in combinations(overlays, 2):
        for x in (*a.swaps, *a.keys):
            for y in (*b.swaps, *b.keys):
                if x == y or x.startswith(f"{y}.") or y.startswith(f"{x}."):
                    return a.name, b.name, min(x, y, key=len)
    return None


def check(config: DictConfig) -> None:
    """Hydra would let the last overlay win in silence, or leave keys of one option with another.

    Args:
        config: composed, not resolved, with Hydra's part; without it, the running job's is asked.

    Raises:
        UserError: two of the overlays on the command line change the same.
    """
    own = OmegaConf.select(config, "hydra")
    hydra = own or (HydraConfig.get() if HydraConfig.initialized() else None)
    if hydra is None:
        return
    folders = [Path(s.path) / GROUP for s in hydra.runtime.config_sources if s.schema == "file"]
    files = [next((f / f"{n}.yaml" for f in folders if (f / f"{n}.yaml").is_file()), None) for n in _chosen(hydra)]
    overlays = [read(path) for path in files if path is not None]
    found = clash(overlays)
    if found is not None:
        one, other, what = found
        raise UserError(f"ablation: {one} and {other} both change {what}, so they do not compose; take one of them")
    if own is None and hydra.mode != RunMode.MULTIRUN:
        return  # a single job has been told when its command line was checked
    prior = str(hydra.runtime.choices.get("prior", ""))
    profile = chosen_by([f.parent / "prior" / f"{prior}.yaml" for f in folders])
    for overlay in overlays:
        if overlay.swaps and not overlay.keys and overlay.swaps.items() <= profile.items():
            swaps = ", ".join(f"{group}={option}" for group, option in overlay.swaps.items())
            log.warning("ablation=%s changes nothing: the profile of prior=%s has %s", overlay.name, prior, swaps)


def chosen_by(files: Sequence[Path]) -> dict[str, str]:
    """Config group -> the option that a prior's file takes instead of train.yaml's; of the first file that is there."""
    file = next((f for f in files if f.is_file()), None)
    entries = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", []) if file else []
    swaps = (_swap(entry, file) for entry in entries if str(next(iter(entry), "")).startswith("override /"))
    return {group.partition("@")[0]: option for group, option in swaps}


def _chosen(hydra: DictConfig) -> list[str]:
    """The names that the last `ablation=` of the job's overrides gives."""
    parsed = OverridesParser.create().parse_overrides(OmegaConf.to_container(hydra.overrides.task, resolve=False))
    values = [o.value() for o in parsed if o.key_or_group == GROUP and not o.is_sweep_override()]
    if not values:
        return []
    return [str(name) for name in (values[-1] if isinstance(values[-1], list) else [values[-1]])]
