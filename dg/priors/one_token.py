"""Cross-attention to a single token, as Zero123's UNet has it: attention weights over one key are all 1.

So what a block gets is its value projection of the token, the same for every pixel, whatever the queries are. Computing
that alone is exact and spares the queries, the keys and the attention (a dozen launches in each of 16 blocks, and 4 %
of the arithmetic of a full-size UNet).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class OneTokenAttention:
    """A diffusers attention processor; `otherwise` is used where there are several tokens, or none (self-attention)."""

    def __init__(self, otherwise: Any) -> None:
        self.otherwise = otherwise

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        token = encoder_hidden_states
        if token is None or token.shape[1] != 1 or attention_mask is not None or not _plain(attn, hidden_states):
            return self.otherwise(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if attn.norm_cross:
            token = attn.norm_encoder_hidden_states(token)
        value = attn.to_v(token)
        for layer in attn.to_out:
            value = layer(value)
        return (value / attn.rescale_output_factor).expand(-1, hidden_states.shape[1], -1)


def _plain(attn: Any, hidden_states: Tensor) -> bool:
    """As Stable Diffusion's transformer blocks build it: tokens in a row, the residual added by the block."""
    return hidden_states.ndim == 3 and not attn.residual_connection


def spare_queries(unet: nn.Module) -> None:
    """Gives a diffusers UNet's cross-attentions (`attn2`) the short way."""
    unet.set_attn_processor(
        {
            name: OneTokenAttention(processor) if ".attn2." in name else processor
            for name, processor in unet.attn_processors.items()
        }
    )
