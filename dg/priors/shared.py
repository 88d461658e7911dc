"""One prior for several objects at a time: what they ask is stacked and asked at once (`dg.runtime.lanes`)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.types import Cameras, Condition, Prediction

AtOnce = Callable[[Hashable, Any, Callable[[list[Any]], list[Any]]], Any]  # `dg.runtime.lanes.at_once`


def can_be_shared(prior: Any) -> bool:
    """Whether the prior's predictions for a batch are those for its pictures, and its conditions can be stacked."""
    from dg.priors.zero123 import Zero123
    from dg.priors.zero123_mini import Zero123Mini

    return isinstance(prior, (Zero123, Zero123Mini))


@dataclass(frozen=True)
class _Encoded:
    """A batch that was encoded with its graph kept, and what each object's share of it is."""

    rgb: Float[Tensor, "N 3 H W"]
    z: Float[Tensor, "N C h w"]
    shares: list[slice]


class SharedPrior:
    """What one object sees of a prior that several use. Behaves as the prior itself.

    Conditions are computed by a copy that has the networks in common and its own memory of the reference; encode,
    decode and predict go through `at_once`.

    Args:
        pad: batches are filled up to a power of two (by copies of their last picture), since a CUDA graph is recorded
            for every size that occurs.
    """

    def __init__(self, prior: Any, at_once: AtOnce, pad: bool) -> None:
        self._base, self._own, self._at_once, self._pad = prior, copy.copy(prior), at_once, pad

    @property
    def behind(self) -> Any:
        """The prior that does the work."""
        return self._base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        if torch.is_grad_enabled() and rgb.requires_grad:
            return self._base.encode(rgb)  # its backward pass is the caller's alone
        return self._of_all("encode", rgb, self._base.encode)

    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        if torch.is_grad_enabled() and z.requires_grad:
            return self._base.decode(z)
        return self._of_all("decode", z, self._base.decode)

    def predict(self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], cond: Condition) -> Prediction:
        question = z_t.detach(), t.reshape(-1).expand(len(z_t)), cond
        return self._at_once(("predict", id(self._base), _layout((z_t, cond.extra))), question, self._predict)

    @torch.no_grad()
    def _predict(self, questions: list[tuple[Tensor, Tensor, Condition]]) -> list[Prediction]:
        z, t, conditions = zip(*questions, strict=True)
        sizes = [len(x) for x in z]
        extra = _stack([c.extra for c in conditions], sizes)
        first = conditions[0].cameras
        cameras = replace(
            first, c2w=torch.cat([c.cameras.c2w for c in conditions]), K=torch.cat([c.cameras.K for c in conditions])
        )
        background = torch.cat([c.background.expand(n, 3) for c, n in zip(conditions, sizes, strict=True)])
        told = Condition(cameras, background, extra)
        fill = self._filling(sum(sizes))
        found = self._base.predict(_filled(torch.cat(z), fill), _filled(torch.cat(t), fill), _filled(told, fill))
        parts = _shares(sizes)
        uncond = [None if found.uncond is None else found.uncond[part] for part in parts]
        return [Prediction(found.cond[part], u) for part, u in zip(parts, uncond, strict=True)]

    def encode_cut(self, rgb: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See `dg.priors.cut.encoded`."""
        key = ("encode with its gradient", id(self._base), _layout(rgb))
        batch, part = self._at_once(key, rgb.detach(), self._encode_kept)
        z = batch.z.detach()[part].requires_grad_()

        def back(loss: Tensor) -> Tensor:
            (gradient,) = torch.autograd.grad(loss, z)
            z.grad = gradient  # for those who watch
            pulled = self._at_once(("pull", id(batch)), (batch, part, gradient), self._pull)
            return loss.detach() + ((rgb - rgb.detach()) * pulled).sum()

        return z, back

    @torch.enable_grad()
    def _encode_kept(self, pictures: list[Tensor]) -> list[tuple[_Encoded, slice]]:
        sizes = [len(x) for x in pictures]
        rgb = _filled(torch.cat(pictures), self._filling(sum(sizes))).requires_grad_()
        batch = _Encoded(rgb, self._base.encode(rgb), _shares(sizes))
        return [(batch, part) for part in batch.shares]

    def _pull(self, questions: list[tuple[_Encoded, slice, Tensor]]) -> list[Tensor]:
        batch = questions[0][0]
        if len(questions) == len(batch.shares):
            gradient = torch.zeros_like(batch.z)
            for _, part, own in questions:
                gradient[part] = own
            # a CUDA graph that other objects' renders have run through since has forgotten this batch
            with suppress(RuntimeError):
                (pulled,) = torch.autograd.grad(batch.z, batch.rgb, gradient)
                return [pulled[part] for _, part, _ in questions]
        return [self._pull_alone(*question) for question in questions]  # or another object of the batch has failed

    @torch.enable_grad()
    def _pull_alone(self, batch: _Encoded, part: slice, gradient: Tensor) -> Tensor:
        rgb = batch.rgb.detach()[part].requires_grad_()
        return torch.autograd.grad(self._base.encode(rgb), rgb, gradient)[0]

    def _of_all(self, name: str, value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        @torch.no_grad()
        def serve(values: list[Tensor]) -> list[Tensor]:
            sizes = [len(x) for x in values]
            found = function(_filled(torch.cat(values), self._filling(sum(sizes))))
            return [found[part] for part in _shares(sizes)]

        return self._at_once((name, id(self._base), _layout(value)), value.detach(), serve)

    def _filling(self, count: int) -> int:
        return (1 << (count - 1).bit_length()) - count if self._pad else 0


def _shares(sizes: Sequence[int]) -> list[slice]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _layout(value: Any) -> Hashable:
    """What must be equal for values to be stacked: structure, dtypes, and shapes but for the first number."""
    if isinstance(value, Tensor):
        return value.shape[1:], value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_layout(x) for x in value)
    if is_dataclass(value):
        return type(value), *(_layout(getattr(value, f.name)) for f in fields(value))
    return value


def _stack(values: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Equally built values one after the other; what is told once for several pictures is repeated for each of them."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([x.repeat_interleave(n // len(x), 0) for x, n in zip(values, sizes, strict=True)])
    if isinstance(first, (list, tuple)):
        return type(first)(_stack(parts, sizes) for parts in zip(*values, strict=True))
    if is_dataclass(first):
        return replace(first, **{f.name: _stack([getattr(v, f.name) for v in values], sizes) for f in fields(first)})
    return first


def _filled(value: Any, count: int) -> Any:
    """`count` more copies of the last picture."""
    if count == 0:
        return value
    if isinstance(value, Tensor):
        return torch.cat([value, value[-1:].expand(count, *value.shape[1:])])
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(x, count) for x in value)
    if isinstance(value, Cameras):
        return replace(value, c2w=_filled(value.c2w, count), K=_filled(value.K, count))
    if is_dataclass(value):
        return replace(value, **{f.name: _filled(getattr(value, f.name), count) for f in fields(value)})
    return value
