"""experiments/NAME/experiment.yaml: what is asked, and which runs answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from dg.runtime.build import nearest
from dg.runtime.errors import UserError
from dg.runtime.options import REPOSITORY

OUTDIR = Path("outputs/experiments")  # of runs, unless another is asked for
EXPERIMENTS = REPOSITORY / "experiments"
FILE = "experiment.yaml"
KEYS = (
    *("question", "evaluate", "blocks", "variants", "factors", "baseline", "seeds", "stages", "figures", "shown"),
    "smoke",
)
STAGES = ("mesh", "coarse", "splats")


@dataclass(frozen=True)
class Experiment:
    """Attributes:
    evaluate: overrides of evaluate.py that all runs share (protocol, preset, ...).
    blocks: name -> overrides. Variants are compared within each block, never across.
    variants: name -> overrides on top of the block's. With `factors` in the file, every combination of their options.
    baseline: the variant that differences are paired against, at the first of `stages`.
    stages: what of a run is measured: mesh | coarse | splats.
    figures: of the protocol's, the first one is tested for significance.
    shown: objects on the picture of effects.
    smoke: more overrides of evaluate.py for `--smoke`.
    """

    name: str
    folder: Path
    question: str
    evaluate: tuple[str, ...]
    blocks: Mapping[str, tuple[str, ...]]
    variants: Mapping[str, tuple[str, ...]]
    baseline: str
    seeds: tuple[int, ...] = (0,)
    stages: tuple[str, ...] = ("mesh",)
    figures: tuple[str, ...] = ("psnr_db", "silhouette_iou")
    shown: tuple[str, ...] = ()
    smoke: tuple[str, ...] = field(default=())

    @property
    def records(self) -> Path:
        return self.folder / "records.jsonl"

    def method(self, block: str, variant: str) -> str:
        """The name under which evaluate.py records the runs of a variant in a block."""
        return f"{block}/{variant}" if block else variant

    def smallest(self) -> Experiment:
        """The baseline and one other variant with one seed: what shows that the whole runs, as `--smoke` asks it."""
        others = [name for name in self.variants if name != self.baseline][:1]
        kept = {name: self.variants[name] for name in (self.baseline, *others)}
        return replace(self, variants=kept, seeds=self.seeds[:1])

    @property
    def needs_data(self) -> bool:
        """Whether its objects lie in a folder that nobody but the user has."""
        named = [o.startswith("data=") for o in (*self.evaluate, *self.smoke)]
        return "protocol=gt_folder" in self.evaluate and not any(named)

    def methods(self) -> list[str]:
        """Entries of evaluate.py's `methods`."""
        from dg.runtime.evaluation.runs import merged

        found = []
        for (block, shared), (variant, own) in product(self.blocks.items(), self.variants.items()):
            words = [f"as:{self.method(block, variant)}", *(o.replace("=", ":", 1) for o in merged(shared, own))]
            found.append(" ".join(words))
        return found


def names(root: Path = EXPERIMENTS) -> list[str]:
    return sorted(path.parent.name for path in root.glob(f"*/{FILE}"))


def load(name: str, root: Path = EXPERIMENTS) -> Experiment:
    """Raises:
    UserError: there is no such experiment, or its file has a mistake; names the key and the mend.
    """
    path = root / name / FILE
    if not path.is_file():
        raise UserError(f"there is no experiment {name}{nearest(name, names(root))}")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise UserError(f"{name}/{FILE}: expected keys, among them question and variants")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{name}/{FILE}: there is no key {key}{nearest(str(key), KEYS)}")
    return _checked(name, path.parent, content)


def _checked(name: str, folder: Path, content: dict[str, Any]) -> Experiment:
    def complain(what: str) -> UserError:
        return UserError(f"{name}/{FILE}: {what}")

    if not content.get("question"):
        raise complain("question is missing: say in a sentence what the table is to answer")
    if ("variants" in content) == ("factors" in content):
        raise complain("give either variants (name: overrides) or factors (group: options)")
    variants = _variants(content, complain)
    baseline = content.get("baseline", next(iter(variants)))
    if baseline not in variants:
        raise complain(f"baseline={baseline} is no variant{nearest(str(baseline), variants)}")
    stages = tuple(content.get("stages", ["mesh"]))
    for stage in stages:
        if stage not in STAGES:
            raise complain(f"stages: there is no {stage}{nearest(str(stage), STAGES)}")
    return Experiment(
        name=name,
        folder=folder,
        question=" ".join(str(content["question"]).split()),
        evaluate=_overrides(content.get("evaluate", []), "evaluate", complain),
        blocks={str(k): _overrides(v, f"blocks.{k}", complain) for k, v in (content.get("blocks") or {"": []}).items()},
        variants=variants,
        baseline=baseline,
        seeds=tuple(content.get("seeds", [0])),
        stages=stages,
        figures=tuple(content.get("figures", Experiment.figures)),
        shown=tuple(content.get("shown", [])),
        smoke=_overrides(content.get("smoke", []), "smoke", complain),
    )


def _variants(content: dict[str, Any], complain: Any) -> dict[str, tuple[str, ...]]:
    if "factors" in content:
        factors = content["factors"]
        combined = product(*factors.values())
        return {
            "+".join(map(str, options)): tuple(f"{k}={o}" for k, o in zip(factors, options, strict=True))
            for options in combined
        }
    found = {str(k): _overrides(v, f"variants.{k}", complain) for k, v in content["variants"].items()}
    for key in found:
        if " " in key or "/" in key:
            raise complain(f"variants.{key}: a name without blanks and slashes, please")
    return found


def _overrides(value: Any, where: str, complain: Any) -> tuple[str, ...]:
    listed = [] if value is None else value if isinstance(value, list) else [value]
    for entry in listed:
        if not isinstance(entry, str) or "=" not in entry or " " in entry:
            raise complain(f"{where}: {entry!r} is no override of the form key=value")
    return tuple(listed)
