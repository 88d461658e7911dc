"""A prior that stays loaded while one run after another uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dg.runtime.lanes import at_once


class PriorShelf:
    """Keeps the prior that was built last. Asking for another drops it first: memory holds one at a time."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._prior: Any = None

    def get(self, config: Any, device: str, build: Callable[[], Any]) -> Any:
        """The kept prior if it was built from the same config for the same device, else `build()`."""
        key = json.dumps([config, device], sort_keys=True, default=str)
        if key != self._key:
            self._key = self._prior = None
            self._prior = build()
            self._key = key
        return self._prior


class SharedShelf(PriorShelf):
    """What one of several runs that take turns (`dg.runtime.lanes`) sees of a shelf: priors that answer all at once."""

    def __init__(self, shelf: PriorShelf) -> None:
        super().__init__()
        self._shelf = shelf

    def get(self, config: Any, device: str, build: Callable[[], Any]) -> Any:
        from dg.priors.shared import SharedPrior, can_be_shared

        prior = self._shelf.get(config, device, build)
        return SharedPrior(prior, at_once, pad=device.startswith("cuda")) if can_be_shared(prior) else prior
