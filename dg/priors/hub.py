"""Weights on the Hugging Face hub: what `prior.checkpoint` names there, its cache, and downloads.

The hub's client is imported where it is needed, since it takes a while; nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMIT = re.compile("[0-9a-f]{40}")
NAMED = re.compile(rf"(?P<name>[^/@~.][^/@]*/[^/@]+)(@(?P<pin>{COMMIT.pattern}|main)(/(?P<file>.+))?)?")


@dataclass(frozen=True)
class Place:
    """A repository, or one file of it.

    Attributes:
        name: OWNER/NAME.
        revision: commit or branch; None: the newest.
        file: its path in the repository; None: the repository in the diffusers layout.
    """

    name: str
    revision: str | None
    file: str | None = None

    def __str__(self) -> str:
        return self.name if self.file is None else f"{self.name}, file {self.file}"


def parsed(checkpoint: str, revision: str | None) -> Place:
    """OWNER/NAME, OWNER/NAME@COMMIT, or OWNER/NAME@COMMIT/FILE; "main" serves as COMMIT, too.

    Args:
        revision: goes before the pin.

    Raises:
        FileNotFoundError: it is neither; says that no such folder was found either.
    """
    found = NAMED.fullmatch(checkpoint)
    if found is None:
        raise FileNotFoundError(
            f"prior.checkpoint={checkpoint}: no such folder or file, and nothing of the hub: owner/name, "
            "owner/name@COMMIT or owner/name@COMMIT/FILE"
        )
    return Place(found["name"], revision or found["pin"], found["file"])


def cached(place: Place) -> Path | None:
    """What the hub's cache has of it: the file, or the repository's folder, complete or not; None: nothing."""
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if place.file is not None:
            return Path(hf_hub_download(place.name, place.file, revision=place.revision, local_files_only=True))
        # no patterns: else the client refuses a folder that lacks files of the repository which nobody has asked for
        return Path(snapshot_download(place.name, revision=place.revision, local_files_only=True, allow_patterns=[]))
    except Exception:  # the hub client raises its own, requests', httpx's and OS errors
        return None


def download(place: Place, chosen: Callable[[Sequence[str]], list[str]], hint: str) -> Path:
    """The local file, or the folder of the repository's files that `chosen` takes.

    Raises:
        FileNotFoundError: the hub could not be asked, has no such thing or keeps it from us.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        if place.file is not None:
            return Path(hf_hub_download(place.name, place.file, revision=place.revision))
        names = HfApi().list_repo_files(place.name, revision=place.revision)
        return Path(snapshot_download(place.name, revision=place.revision, allow_patterns=chosen(names)))
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"prior.checkpoint={place.name} has no revision {place.revision}; prior.revision=main takes the newest"
        ) from error
    except RepositoryNotFoundError as error:  # also what the hub tells of a gated one those who have no access
        raise FileNotFoundError(
            f"prior.checkpoint={place}: the hub shows no such repository ({type(error).__name__}); check the name, and "
            f"of a gated or private one accept the terms on its page and log in (hf auth login); or {hint}"
        ) from error
    except Exception as error:
        absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if absent and place.file is not None:
            raise FileNotFoundError(f"prior.checkpoint={place.name} has no file {place.file}") from error
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"  # a full disk is no missing network
        raise not_there(place, said, hint) from error


def not_there(place: Place, reason: str, hint: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"the weights of prior.checkpoint={place} are neither in the hub's cache nor could they be downloaded "
        f"({reason}); connect to the network, or pass prior.checkpoint=FOLDER, or {hint}"
    )


def source_of(checkpoint: str, place: Path) -> dict[str, str | None]:
    """What the manifest records of a checkpoint: its folder, file or hub id, and the hub's commit that it came from.

    The hub's client keeps each commit in a folder snapshots/COMMIT.
    """
    folders = (p.name for p in (place, *place.parents) if p.parent.name == "snapshots")
    commit = next((name for name in folders if COMMIT.fullmatch(name)), None)
    if commit is None:
        return {"checkpoint": checkpoint, "revision": None}
    named = parsed(checkpoint, None) if NAMED.fullmatch(checkpoint) else None
    if named is not None:
        checkpoint = named.name if named.file is None else f"{named.name}@{commit}/{named.file}"
    return {"checkpoint": checkpoint, "revision": commit}
