"""From `methods=[...]`, `references=[...]` and `method_dir=...` to methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dg.eval import references
from dg.eval.foreign import ForeignMethod, open_method
from dg.eval.protocol import Item, Protocol
from dg.runtime.build import nearest
from dg.runtime.errors import UserError
from dg.runtime.evaluation.made import Made, checksum
from dg.runtime.evaluation.options import as_list
from dg.runtime.evaluation.runs import RunMethod, for_runs, merged
from dg.runtime.options import sweep_name
from dg.runtime.shelf import PriorShelf

# References that are runs of ours. With the exact score at one noise level (alpha_bar = 1/2), distillation is plain
# regression of renders on true renders: what the representation and the mesh stage can reach, whatever the prior.
RUNS = {
    "oracle": ["prior=oracle"],
    "silhouette": ["prior=silhouette"],
    "reconstruction": [
        "prior=oracle",
        "anneal=uniform",
        "anneal.t_min=0.354",
        "anneal.t_max=0.354",
        "distill.weighting=uniform",
    ],
}
FROM_TRUTH = ("oracle", "oracle_blur")
REFERENCES = ("truth", "reconstruction", "oracle", "silhouette", "billboard", "input_copied")


@dataclass
class BuiltIn:
    """A reference that needs no run: the truth itself, the input picture as a card, the input copied."""

    name: str
    protocol: Protocol
    kind: str = "reference"
    licence: str | None = None

    def stages(self, item: Item) -> tuple[str, ...]:
        pictures = self.name == "input_copied" or (self.name == "truth" and item.truth_views is not None)
        return ("renders",) if pictures else ("mesh",)

    def identity(self) -> str:
        return checksum(["reference", self.name, references.VERSION])

    def applies(self, item: Item) -> bool:
        return references.applies(self.name, item)

    def make(self, item: Item, seed: int, folder: Path, again: bool) -> Made:
        return Made({self.stages(item)[0]: references.make(self.name, item, self.protocol, folder)})


@dataclass
class Foreign:
    """Somebody else's results in a folder."""

    found: ForeignMethod
    protocol: Protocol
    kind: str = "foreign"

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def licence(self) -> str | None:
        return self.found.licence

    def stages(self, item: Item) -> tuple[str, ...]:
        return (self.found.stage,)

    def identity(self) -> str:
        return self.found.checksum()

    def applies(self, item: Item) -> bool:
        return True  # what is missing in the folder is a failure

    def make(self, item: Item, seed: int, folder: Path, again: bool) -> Made:
        result = self.found.result(item, self.protocol)
        if result is None:
            return Made({}, failure=f"no result for {item.name} in its folder")
        costs = {} if self.found.seconds is None else {"seconds": self.found.seconds}
        costs |= {} if self.found.vram_gb is None else {"peak_gpu_memory_mb": self.found.vram_gb * 1024}
        return Made({self.found.stage: result}, {self.found.stage: costs}, device=self.found.hardware or "")


def resolve(config: dict[str, Any], overrides: Sequence[str], protocol: Protocol, config_dir: Path) -> list[Any]:
    """All methods of an evaluation: the asked ones first, then the foreign ones, then the references.

    Args:
        overrides: of the evaluation's own command line.

    Raises:
        UserError: an unknown name, or an override that no run could have.
    """
    general, shelf = for_runs(overrides), PriorShelf()
    preset = next((o.partition("=")[2] for o in general if o.startswith("preset=") and o != "preset=none"), None)

    def run(name: str, own: list[str], kind: str) -> RunMethod:
        shown = f"{name} ({preset})" if preset else name
        combined = merged(general, own)
        return RunMethod(shown, combined, config_dir, kind, _from_truth(combined), shelf)

    def reference(name: str) -> RunMethod | BuiltIn:
        return run(name, RUNS[name], "reference") if name in RUNS else BuiltIn(name, protocol)

    found: list[Any] = []
    priors = sorted(p.stem for p in (config_dir / "prior").glob("*.yaml") if not p.stem.startswith("_"))
    for entry in map(str, as_list(config["methods"], "methods")):
        if entry == "ours":
            found.append(run(_own_name(general, config_dir), [], "ours"))
        elif own := own_overrides(entry):
            given, own = given_name(own)
            made = run(given or _own_name(merged(general, own), config_dir), own, "ours")
            found.append(replace(made, name=given) if given else made)
        elif entry in REFERENCES:
            found.append(reference(entry))
        elif entry in priors:
            found.append(run(entry, [f"prior={entry}"], "ours"))
        else:
            raise UserError(
                f"methods: {entry} is neither ours, a prior, a reference nor overrides such as "
                f"ablation:no_anneal{nearest(entry, ['ours', *priors, *REFERENCES])}"
            )
    for folder in as_list(config["method_dir"], "method_dir"):
        try:
            found.append(Foreign(open_method(Path(folder)), protocol))
        except (OSError, ValueError) as error:
            raise UserError(f"method_dir={folder}: {error}") from error
    for name in map(str, as_list(config["references"], "references")):
        if name not in REFERENCES:
            raise UserError(f"references: there is no {name}{nearest(name, REFERENCES)}")
        found.append(reference(name))
    return _unique(found)


def own_overrides(entry: str) -> list[str]:
    """`prior:oracle ablation:no_anneal`, or the same with `=` (which Hydra wants quoted within a list)."""
    parts = entry.split()
    found = [p if "=" in p else p.replace(":", "=", 1) for p in parts]
    return found if all("=" in p for p in found) else []


def given_name(own: Sequence[str]) -> tuple[str | None, list[str]]:
    """`as:NAME` among the overrides names the method; (name, the others)."""
    named = [o.partition("=")[2] for o in own if o.startswith("as=")]
    return (named[-1] if named else None), [o for o in own if not o.startswith("as=")]


def _from_truth(overrides: Sequence[str]) -> bool:
    given = any(o.startswith("prior.mesh=") for o in overrides)
    return not given and any(o in (f"prior={name}" for name in FROM_TRUTH) for o in overrides)


def _own_name(overrides: Sequence[str], config_dir: Path) -> str:
    import yaml

    listed = yaml.safe_load((config_dir / "train.yaml").read_text())["defaults"]
    default = next(entry["prior"] for entry in listed if isinstance(entry, dict) and "prior" in entry)
    prior = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("prior=")), default)
    return sweep_name(prior, [o for o in overrides if not o.startswith(("prior=", "preset="))])


def _unique(methods: list[Any]) -> list[Any]:
    """The first of every name: a method that is also a reference runs once."""
    return list({m.name: m for m in reversed(methods)}.values())[::-1]
