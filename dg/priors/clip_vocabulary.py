"""CLIP's tokenizer for checkpoints that come without its files: the vocabulary that open_clip carries."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from dg.priors.prompts import load_tokenizer

MERGES = 49152 - 256 - 2  # of the merges in the file so many are used
LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
FILES = ("vocab.json", "merges.txt")


def tokenizer_for(path: Path, vocabulary: int, padding: str) -> Any:
    """The tokenizer of a single-file checkpoint: of a folder tokenizer/ beside it, else CLIP's own.

    Args:
        vocabulary: how many tokens the text encoder knows.
        padding: the token that fills short prompts: the end's in Stable Diffusion 1, "!" in 2.

    Raises:
        ValueError: the tokenizer and the text encoder do not belong together.
    """
    beside = path.parent / "tokenizer"
    given = all((beside / name).is_file() for name in FILES)
    tokenizer = load_tokenizer(beside) if given else packaged(padding)
    if len(tokenizer) != vocabulary:
        where = str(beside) if given else "CLIP's vocabulary"
        raise ValueError(
            f"{path}: its text encoder knows {vocabulary} tokens, {where} has {len(tokenizer)}; "
            f"put the right {' and '.join(FILES)} into {beside}"
        )
    return tokenizer


def packaged(padding: str = END) -> Any:
    """transformers' CLIPTokenizer with the public vocabulary of 49408 tokens."""
    import open_clip

    archive = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(archive.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    letters = alphabet()
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m.split()) for m in merges), START, END]
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": padding}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / FILES[0]).write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
        (folder / FILES[1]).write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
        (folder / "special_tokens_map.json").write_text(json.dumps(marks))
        config = marks | {"model_max_length": LENGTH, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return load_tokenizer(folder)


def alphabet() -> list[str]:
    """A letter for each byte, in the order of GPT-2's vocabulary: printable bytes as they are, then 256 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
