"""Strict instantiation: the constructor is the schema.

Hydra's own instantiate reports a wrong key as a TypeError with a traceback, and never looks at nodes it does not build.
Here a whole config can be checked without building anything, and every complaint names the key, the nearest valid one
and the mend.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dg.io import suggest
from dg.runtime.errors import UserError

MARKS = ("_target_", "_partial_")
DATA = ("profile", "about")  # blocks that a component carries for others to read; most constructors do not see them
MISSING = "???"
_LEAVES = (bool, int, float, str)


def nearest(word: str, valid: Iterable[str], limit: int = 30) -> str:
    """`dg.io.suggest.nearest` of names in a config: in order, without those that begin with an underscore."""
    return suggest.nearest(word, sorted({str(v) for v in valid if not str(v).startswith("_")}), limit)


def locate(path: str, where: str) -> Callable[..., Any]:
    """The object that a dotted path names.

    Raises:
        UserError: no such module or attribute, or its import fails; names the node and the nearest valid name.
    """
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise UserError(
                f"{where}._target_={path} needs the package {error.name}, which is not installed"
            ) from error
        except ImportError as error:
            raise UserError(f"{where}._target_={path} cannot be imported: {error}") from error
        for attribute in parts[cut:]:
            if not hasattr(found, attribute):
                raise UserError(f"{where}._target_={path}: {name} has no {attribute}{nearest(attribute, dir(found))}")
            found = getattr(found, attribute)
        if not callable(found):
            raise UserError(f"{where}._target_={path} is not something that can be called")
        return found
    raise UserError(f"{where}._target_={path}: there is no module {parts[0]}")


def _fits(value: Any, annotation: Any) -> bool | None:
    """Whether a leaf fits a simple annotation; None where the annotation says nothing about leaves."""
    if annotation is Any or annotation is inspect.Parameter.empty:
        return None
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        fits = [_fits(value, a) for a in args]
        return True if True in fits else (None if None in fits else False)
    if origin is typing.Literal:
        return value in args
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is Path:
        return isinstance(value, str)
    if annotation in _LEAVES:
        return isinstance(value, annotation)
    return None


def _expected(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(a).lower() if isinstance(a, bool) else str(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_expected, args))
    if annotation in (None, type(None)):
        return "null"
    return {"str": "text", "bool": "true or false", "int": "a whole number", "float": "a number"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def check_value(value: Any, annotation: Any, where: str) -> None:
    """A leaf against the type that its key declares.

    Raises:
        UserError: it does not fit.
    """
    if value == MISSING:
        raise UserError(f"{where} has no value; give one with {where}=...")
    if isinstance(value, (*_LEAVES, type(None))) and _fits(value, annotation) is False:
        hint = (
            nearest(str(value), typing.get_args(annotation)) if typing.get_origin(annotation) is typing.Literal else ""
        )
        hint = hint if hint.startswith("; did") else ""
        raise UserError(f"{where}={'null' if value is None else value} must be {_expected(annotation)}{hint}")


def _parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any], bool]:
    """(named parameters, their resolved types, whether any other keyword is taken)."""
    signature = inspect.signature(target)
    named = {n: p for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations that only exist for a type checker
        hints = {n: p.annotation for n, p in named.items() if not isinstance(p.annotation, str)}
    return named, hints, any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def check(node: Any, where: str, given: Iterable[str] = ()) -> None:
    """Checks one node of a resolved config and everything below it, without building.

    Args:
        node: plain containers (`OmegaConf.to_container`).
        where: the node's dotted key, for messages.
        given: names of the arguments that the caller of `build` supplies.

    Raises:
        UserError: the first mistake found.
    """
    if isinstance(node, list):
        for i, item in enumerate(node):
            check(item, f"{where}[{i}]")
        return
    if not isinstance(node, Mapping):
        check_value(node, Any, where)
        return
    if "_target_" not in node:
        for key, value in node.items():
            check(value, f"{where}.{key}")
        return
    check_value(node["_target_"], str, f"{where}._target_")
    target = locate(node["_target_"], where)
    named, hints, open_ended = _parameters(target)
    for key, value in node.items():
        if key in MARKS or (key in DATA and key not in named):
            continue
        if key not in named and not open_ended:
            hint = nearest(key, named) if named else ", which takes none"
            raise UserError(f"{where}.{key} is no option of {node['_target_']}{hint}")
        if isinstance(value, (Mapping, list)):
            check(value, f"{where}.{key}")
        else:
            check_value(value, hints.get(key, Any), f"{where}.{key}")
    if not node.get("_partial_"):
        lacking = [n for n, p in named.items() if p.default is p.empty and n not in node and n not in given]
        if lacking:
            raise UserError(f"{where} lacks {', '.join(lacking)}, which {node['_target_']} needs")


def build(node: Any, where: str, **given: Any) -> Any:
    """Builds a node: calls its `_target_` with its keys, children first; nodes without `_target_` stay containers.

    Args:
        node: plain containers (`OmegaConf.to_container`).
        where: the node's dotted key, for messages.
        given: arguments that no config can hold (tensors, other components); they win over the node's.

    Raises:
        UserError: a mistake in the node, or the constructor reports a missing file, package or device or a wrong
            value.
    """
    check(node, where, given)
    return _build(node, where, given)


def _build(node: Any, where: str, given: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_build(item, f"{where}[{i}]", {}) for i, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    children = {k: _build(v, f"{where}.{k}", {}) for k, v in node.items() if k not in MARKS and k not in given}
    if "_target_" not in node:
        return children
    target = locate(node["_target_"], where)
    named = _parameters(target)[0]
    arguments = {k: v for k, v in children.items() if k not in DATA or k in named} | dict(given)
    if node.get("_partial_"):
        return partial(target, **arguments)
    try:
        return target(**arguments)
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: {_with_keys_of(where, ' '.join(str(error).split()))}") from error


def _with_keys_of(where: str, message: str) -> str:
    """A component names its keys as if it stood at its group (prior.checkpoint=...); here by where it stands."""
    group = where.partition(".")[0]
    return re.sub(rf"(?<![\w.]){re.escape(group)}\.(?=[a-z_]+=)", f"{where}.", message)


def inert(component: Any, where: str, iters: int) -> list[str]:
    """What a component's values cannot do within `iters` steps; asks its `inert(iters) -> list[str]` if it has one."""
    ask = getattr(component, "inert", None)
    return [f"{where}: {text}" for text in ask(iters)] if callable(ask) else []
