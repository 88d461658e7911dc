"""Prompts as a text prior reads them: CLIP's tokens, cut to its length, and their embeddings, computed once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

log = logging.getLogger("dg")

Text = tuple[str, str]  # a prompt, and words after it that are never cut (", front view")


class PromptEncoder:
    """Args:
    tokenizer: transformers' CLIPTokenizer.
    text_encoder: transformers' CLIPTextModel. On a GPU it stays there only while it works.
    device: where it works and the embeddings are kept.
    """

    def __init__(self, tokenizer: Any, text_encoder: Any, device: torch.device) -> None:
        self.tokenizer, self.text_encoder, self.device = tokenizer, text_encoder.to("cpu"), device
        self.length = min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))
        self._cached: dict[Text, Tensor] = {}
        self._warned: set[str] = set()

    @torch.no_grad()
    def __call__(self, texts: Sequence[Text]) -> Float[Tensor, "N L D"]:
        """The last hidden states of N texts, L = 77 tokens each."""
        new = [text for text in dict.fromkeys(texts) if text not in self._cached]
        if new:
            encoder = self.text_encoder.to(self.device)
            for text in new:
                self._cached[text] = encoder(self.tokens(*text).to(self.device))[0][0]
            encoder.to("cpu")
        return torch.stack([self._cached[text] for text in texts])

    def tokens(self, prompt: str, suffix: str = "") -> Int[Tensor, "1 L"]:
        """Padded to the tokenizer's length. What is too long loses the end of the prompt, with one warning."""
        whole = self._ids(prompt + suffix)
        if len(whole) + 2 <= self.length:
            padded = self.tokenizer(prompt + suffix, padding="max_length", max_length=self.length, return_tensors="pt")
            return padded["input_ids"]
        own, tail = self._ids(prompt), self._ids(suffix)
        keep = max(self.length - 2 - len(tail), 0)
        if prompt not in self._warned:
            self._warned.add(prompt)
            log.warning(
                "the prompt has %d tokens and the text encoder reads %d; its end is left out: '%s'",
                len(own),
                keep,
                self.tokenizer.decode(own[keep:]).strip(),
            )
        first, last = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return torch.tensor([[first, *own[:keep], *tail, last]])

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def load_tokenizer(folder: Path) -> Any:
    """
    Raises:
        ValueError: vocab.json or merges.txt cannot be read.
    """
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers and tokenizers have their own kinds
        raise ValueError(
            f"{folder}: not the files of a CLIPTokenizer (vocab.json, merges.txt): "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
