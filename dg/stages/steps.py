"""The loader of a run that optimises one scene: the numbers of its steps."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader, Sampler


class _From(Sampler[int]):
    """Indices start .. iters - 1. Its length stays `iters`: a resumed Lightning loop counts the steps already taken."""

    def __init__(self, iters: int, start: int) -> None:
        self.iters, self.start = iters, start

    def __len__(self) -> int:
        return self.iters

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.iters))


def steps(iters: int, start: int = 0) -> DataLoader:
    """The loader of one run: the step numbers start + 1 .. iters, since optimising one scene has no data set.

    Not an IterableDataset: Lightning warns about every one that has a length.
    """
    return DataLoader(range(1, iters + 1), batch_size=None, sampler=_From(iters, start))
