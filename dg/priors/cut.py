"""Encoding a render so that a prior may join the backward passes of several objects."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from dg.priors.protocol import Prior


def encoded(prior: Prior, rgb: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], Callable[[Tensor], Tensor]]:
    """`prior.encode(rgb)`, and what makes a loss on the code a loss on `rgb`: most often the same loss.

    A prior with `encode_cut` gives a code that autograd does not follow back to `rgb`; it does that step itself as soon
    as it sees the loss, for all objects that it serves, long before the backward pass of any of them.
    """
    cut = getattr(prior, "encode_cut", None)
    return (prior.encode(rgb), lambda loss: loss) if cut is None else cut(rgb)
