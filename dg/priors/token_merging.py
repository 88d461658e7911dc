"""Token merging in a UNet's self-attention at its largest resolution (Bolya and Hoffman 2023, ToMe for SD).

Every fourth token (the upper left one of each 2 x 2 cell) is a destination, the others are sources. A source looks for
the destination that it is most alike (cosine); the most alike share of them is averaged into theirs, attention works
on what is left, and each merged token gets the result of its destination. Shapes depend on nothing but the share, so a
CUDA graph can hold it. The release draws the destinations at random; here they are fixed: a graph repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]


def merging(tokens: Float[Tensor, "B N D"], share: float) -> tuple[Map, Map]:
    """(merge [B N D] -> [B M D], unmerge [B M D] -> [B N D]) for a square picture of N = side^2 tokens, side even.

    Args:
        share: of all tokens, that go; at most the three quarters that are sources.
    """
    target, source = _split(tokens.shape[1], tokens.device)
    gone = min(int(share * tokens.shape[1]), len(source))
    unit = F.normalize(tokens, dim=-1)
    likeness, nearest = (unit[:, source] @ unit[:, target].transpose(1, 2)).max(-1)
    order = likeness.sort(dim=-1, descending=True, stable=True).indices
    merged, kept = order[:, :gone], order[:, gone:]
    into = nearest.gather(1, merged)

    def merge(x: Float[Tensor, "B N D"]) -> Float[Tensor, "B M D"]:
        sources = x[:, source]
        total = x[:, target].scatter_add(1, _wide(into, x), sources.gather(1, _wide(merged, x)))
        count = torch.ones_like(total[..., :1]).scatter_add(1, into[..., None], torch.ones_like(into[..., None]).to(x))
        return torch.cat([sources.gather(1, _wide(kept, x)), total / count], 1)

    def unmerge(y: Float[Tensor, "B M D"]) -> Float[Tensor, "B N D"]:
        alone, targets = y[:, : kept.shape[1]], y[:, kept.shape[1] :]
        sources = y.new_empty(len(y), len(source), y.shape[-1])
        sources = sources.scatter(1, _wide(kept, y), alone)
        sources = sources.scatter(1, _wide(merged, y), targets.gather(1, _wide(into, y)))
        out = y.new_empty(len(y), len(source) + len(target), y.shape[-1])
        out[:, target], out[:, source] = targets, sources
        return out

    return merge, unmerge


def _wide(index: Int[Tensor, "B M"], tokens: Float[Tensor, "B N D"]) -> Int[Tensor, "B M D"]:
    return index[..., None].expand(-1, -1, tokens.shape[-1])


def _split(count: int, device: torch.device) -> tuple[Int[Tensor, " D"], Int[Tensor, " S"]]:
    """Destinations and sources among a square's tokens, row by row; by arithmetic, as a graph may read no mask."""
    side = round(count**0.5)
    rows, columns = torch.arange(side // 2, device=device), torch.arange(side, device=device)
    even = columns[: side // 2] * 2
    target = (2 * rows[:, None] * side + even).reshape(-1)
    right = (2 * rows[:, None] * side + even + 1).reshape(-1)
    below = ((2 * rows[:, None] + 1) * side + columns).reshape(-1)
    return target, torch.cat([right, below])


class MergedAttention:
    """A diffusers attention processor: `otherwise` on merged tokens, where they are an even square's."""

    def __init__(self, otherwise: Any, share: float) -> None:
        self.otherwise, self.share = otherwise, share

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        count = hidden_states.shape[1]
        side = round(count**0.5)
        square = hidden_states.ndim == 3 and side * side == count and side % 2 == 0
        if encoder_hidden_states is not None or attention_mask is not None or not square:
            return self.otherwise(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        merge, unmerge = merging(hidden_states, self.share)
        return unmerge(self.otherwise(attn, merge(hidden_states), None, None, temb))


def merge_tokens(unet: nn.Module, share: float) -> None:
    """Lets a diffusers UNet's self-attentions (`attn1`) at the largest resolution work on merged tokens; 0: nothing.

    Raises:
        ValueError: a share outside [0, 0.75]: a quarter of the tokens are destinations.
    """
    if not 0 <= share <= 0.75:
        raise ValueError(f"prior.token_merging={share:g} must be in [0, 0.75]: a quarter of the tokens stay")
    if share == 0:
        return
    last = max(int(n.split(".")[1]) for n in unet.attn_processors if n.startswith("up_blocks."))
    largest = ("down_blocks.0.", f"up_blocks.{last}.")
    unet.set_attn_processor(
        {
            name: MergedAttention(p, share) if name.startswith(largest) and ".attn1." in name else p
            for name, p in unet.attn_processors.items()
        }
    )
