"""Composing a config before Hydra does, so that its mistakes become one clear message."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationToMissingValueError, OmegaConfBaseException

from dg.runtime.build import nearest
from dg.runtime.errors import UserError

# Hydra's plug-ins that bring options of its own groups.
PLUGINS = {f"hydra/launcher={name}": "hydra-submitit-launcher" for name in ("submitit_local", "submitit_slurm")}
PLUGINS |= {f"hydra/launcher={name}": "hydra-ray-launcher" for name in ("ray", "ray_aws")}
PLUGINS |= {"hydra/launcher=joblib": "hydra-joblib-launcher", "hydra/launcher=rq": "hydra-rq-launcher"}
PLUGINS |= {"hydra/sweeper=optuna": "hydra-optuna-sweeper", "hydra/sweeper=ax": "hydra-ax-sweeper"}
PLUGINS |= {"hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper"}


def groups(config_dir: Path) -> set[str]:
    return {p.name for p in config_dir.iterdir() if p.is_dir() and p.name != "hydra"}


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's grammar.

    Raises:
        UserError: an override cannot be read.
    """
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            hint = (
                "options look like key=value"
                if "=" not in text
                else "quote what is not plain: 'key=\"some text, (1)\"'"
            )
            raise UserError(f"cannot read {text!r}: {hint}") from None
    return parsed


def compose(config_dir: Path, name: str, overrides: Sequence[str], search: Sequence[str] = ()) -> DictConfig:
    """The composed config with Hydra's own part, not resolved.

    Args:
        config_dir: the folder conf/.
        search: further folders that hold config groups.

    Raises:
        UserError: what Hydra rejects, in one line with the mend.
    """
    parsed = parse(overrides)
    extra = [f"hydra.searchpath=[{','.join(f'file://{Path(s).resolve()}' for s in search)}]"] if search else []
    try:
        return _compose(config_dir, name, [*overrides, *extra])
    except MissingConfigException as error:
        raise UserError(_missing(error, config_dir)) from error
    except yaml.YAMLError as error:
        raise UserError(f"a config file is not valid YAML: {' '.join(str(error).split())}") from error
    except Exception as error:  # Hydra lets many kinds through, such as AttributeError for a dict laid over a null
        raise UserError(_unknown_key(config_dir, name, parsed, extra) or _first_lines(error)) from error


def _compose(config_dir: Path, name: str, overrides: list[str]) -> DictConfig:
    saved = copy.copy(GlobalHydra.instance().hydra)  # compose inside a running Hydra job must not disturb it
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(config_dir.resolve()), version_base="1.3", job_name="train"):
            return hydra_compose(config_name=name, overrides=overrides, return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = saved


def _missing(error: MissingConfigException, config_dir: Path) -> str:
    wanted = error.missing_cfg_file or ""
    wanted = wanted[0] if isinstance(wanted, (list, tuple)) else wanted
    group, _, option = wanted.rpartition("/")
    if not group:
        return _first_lines(error)
    package = PLUGINS.get(f"{group}={option}")
    if package is not None:
        return f"{group}={option} needs the package {package}, which is not installed: pip install {package}"
    valid = error.options or [p.stem for p in (config_dir / group).glob("*.yaml")]
    return f"{group}={option}: there is no such option{nearest(option, valid)}"


def _first_lines(error: BaseException) -> str:
    text = str(error) if error.__cause__ is None else f"{error} {error.__cause__}"
    return " ".join(text.split())


def dotted(config: Any, prefix: str = "") -> Iterator[str]:
    """Every key of nested containers, as `a.b.c`; inner nodes included."""
    if OmegaConf.is_dict(config):
        for key in config:
            yield f"{prefix}{key}"
            if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
                yield from dotted(config[key], f"{prefix}{key}.")


def suggest(key: str, known: Iterable[str]) -> str:
    """The nearest dotted key; else the one whose last part is nearest, for keys given without their group."""
    known = [k for k in known if not any(part.startswith("_") for part in k.split("."))]
    hint = nearest(key, known)
    if hint.startswith("; did"):
        return hint
    by_leaf = {k.rpartition(".")[2]: k for k in reversed(known)}
    leaf = nearest(key.rpartition(".")[2], by_leaf)
    if leaf.startswith("; did"):
        return f"; did you mean {by_leaf[leaf[len('; did you mean ') : -1]]}?"
    return "; --cfg job lists all keys"


def _unknown_key(config_dir: Path, name: str, parsed: list[Override], extra: list[str]) -> str | None:
    """Which override names a key that does not exist, found by composing with the group choices alone."""
    names = groups(config_dir)
    chosen = [o for o in parsed if o.key_or_group in names or o.key_or_group.startswith("hydra")]
    try:
        base = _compose(config_dir, name, [*(o.input_line for o in chosen), *extra])
    except Exception:
        return None
    base = OmegaConf.masked_copy(base, [k for k in base if k != "hydra"])
    known = [*dotted(base), *sorted(names - {str(k) for k in base})]
    for override in parsed:
        if override in chosen or override.is_add() or override.is_force_add():
            continue
        if override.key_or_group not in known:
            return f"there is no key {override.key_or_group}{suggest(override.key_or_group, known)}"
    return None


def resolve(config: DictConfig) -> dict[str, Any]:
    """Plain containers with every interpolation replaced, Hydra's part left out. Missing values stay '???'.

    Raises:
        UserError: an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(OmegaConf.masked_copy(config, [k for k in config if k != "hydra"]), resolve=True)
    except InterpolationToMissingValueError as error:
        found = re.search(r"mandatory value: (\S+)", str(error))
        key = found.group(1) if found else str(error.full_key)
        raise UserError(f"{key} has no value; give one with {key}=...") from error
    except InterpolationKeyError as error:
        known = list(dotted(config))
        text = str(error).split("'")
        wanted = text[1] if len(text) > 1 else ""
        raise UserError(f"{error.full_key} refers to {wanted}, which does not exist{suggest(wanted, known)}") from error
    except OmegaConfBaseException as error:
        raise UserError(_first_lines(error)) from error
    assert isinstance(plain, dict)
    return plain


def profile_keys(config_dir: Path) -> set[str]:
    """The keys that the priors' profiles use. Profiles are data that other groups interpolate, so no constructor
    knows their keys."""
    found: set[str] = set()
    for path in (config_dir / "prior").glob("*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        found |= set(content.get("profile") or {})
    return found
