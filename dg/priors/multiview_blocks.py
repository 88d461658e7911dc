"""Building blocks of the multi-view UNet. Attribute names are those of the public checkpoints' tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GROUPS = 32  # of every GroupNorm in this family


class ResBlock(nn.Module):
    """Two convolutions, the time and camera embedding added between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        norms = nn.GroupNorm(GROUPS, inputs), nn.GroupNorm(GROUPS, outputs)
        self.in_layers = nn.Sequential(norms[0], nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs))
        # the Identity keeps the place of a dropout, as the convolution is number 3
        self.out_layers = nn.Sequential(norms[1], nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "N C h w"], embedding: Float[Tensor, "N E"]) -> Float[Tensor, "N D h w"]:
        inner = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(inner)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def heads_apart(x: Float[Tensor, "N L D"], channels: int) -> Float[Tensor, "N H L c"]:
    return x.unflatten(-1, (-1, channels)).transpose(1, 2)


class Attention(nn.Module):
    """Args:
    width: of the queries and of the answer.
    context: width of the keys' source.
    head: channels of each head.
    with_image: further keys and values for image tokens, whose answer is added to the text's.
    """

    def __init__(self, width: int, context: int, head: int, *, with_image: bool = False) -> None:
        super().__init__()
        self.head = head
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(width, width))
        if with_image:
            self.to_k_ip, self.to_v_ip = (nn.Linear(context, width, bias=False) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "N L D"], context: Float[Tensor, "N M C"], image: Float[Tensor, "N I C"] | None = None
    ) -> Float[Tensor, "N L D"]:
        q = heads_apart(self.to_q(x), self.head)
        keys = heads_apart(self.to_k(context), self.head)
        answer = F.scaled_dot_product_attention(q, keys, heads_apart(self.to_v(context), self.head))
        if image is not None:
            keys, values = (heads_apart(layer(image), self.head) for layer in (self.to_k_ip, self.to_v_ip))
            answer = answer + F.scaled_dot_product_attention(q, keys, values)
        return self.to_out(answer.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """x * GELU(gate), both from one linear layer."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class JointBlock(nn.Module):
    """Self-attention over the pixels of all views of a sample at once; text and picture by each view for itself."""

    def __init__(self, width: int, context: int, head: int, *, with_image: bool) -> None:
        super().__init__()
        self.attn1 = Attention(width, width, head)
        self.ff = FeedForward(width)
        self.attn2 = Attention(width, context, head, with_image=with_image)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, x: Float[Tensor, "N L D"], context: Float[Tensor, "N M C"], image: Tensor | None, frames: int
    ) -> Float[Tensor, "N L D"]:
        length = x.shape[1]
        joint = self.norm1(x).unflatten(0, (-1, frames)).flatten(1, 2)
        x = x + self.attn1(joint, joint).unflatten(1, (frames, length)).flatten(0, 1)
        x = x + self.attn2(self.norm2(x), context, image)
        return x + self.ff(self.norm3(x))


class JointTransformer(nn.Module):
    """`depth` joint blocks on the pixels as tokens, beside the identity."""

    def __init__(self, width: int, context: int, head: int, depth: int, *, with_image: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(
            JointBlock(width, context, head, with_image=with_image) for _ in range(depth)
        )

    def forward(
        self, x: Float[Tensor, "N D h w"], context: Float[Tensor, "N M C"], image: Tensor | None, frames: int
    ) -> Float[Tensor, "N D h w"]:
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, image, frames)
        return x + self.proj_out(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class _Perceiver(nn.Module):
    """Queries that look at a picture's tokens and at themselves."""

    def __init__(self, width: int, inner: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Float[Tensor, "N M D"], queries: Float[Tensor, "N I D"]) -> Float[Tensor, "N I D"]:
        queries = self.norm2(queries)
        both = self.to_kv(torch.cat([self.norm1(tokens), queries], 1))
        k, v = (heads_apart(x, self.head) for x in both.chunk(2, -1))
        answer = F.scaled_dot_product_attention(heads_apart(self.to_q(queries), self.head), k, v)
        return self.to_out(answer.transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """A picture's CLIP tokens to a few tokens beside the text's (the perceiver of IP-Adapter, Ye et al. 2023).

    Args:
        inputs: width of CLIP's hidden states.
        inner: width of all heads together.
        outputs: width of the text's tokens.
    """

    def __init__(
        self, inputs: int, width: int, inner: int, outputs: int, *, count: int, depth: int, head: int = 64
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, count, width) / width**0.5)
        self.proj_in, self.proj_out = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.norm_out = nn.LayerNorm(outputs)
        self.layers = nn.ModuleList(
            nn.ModuleList([_Perceiver(width, inner, head), _feed_forward(width)]) for _ in range(depth)
        )

    def forward(self, tokens: Float[Tensor, "N M W"]) -> Float[Tensor, "N I C"]:
        tokens = self.proj_in(tokens)
        queries = self.latents.expand(len(tokens), -1, -1)
        for attention, feed_forward in self.layers:
            queries = queries + attention(tokens, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))


def _feed_forward(width: int) -> nn.Sequential:
    inner = 4 * width
    layers = nn.Linear(width, inner, bias=False), nn.GELU(), nn.Linear(inner, width, bias=False)
    return nn.Sequential(nn.LayerNorm(width), *layers)
