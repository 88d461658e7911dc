"""What an offline run of W&B holds, read from its `.wandb` file.

The file is a log as LevelDB's documentation describes it (doc/log_format.md): blocks of 32 KiB with records of a 4-byte
checksum, a 2-byte length and a 1-byte type (1 whole, 2 first, 3 middle, 4 last part), after 7 bytes that name the
format. Each record is a protobuf message of the installed wandb.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, PREAMBLE = 32768, 7, 7


def payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    position, parts = PREAMBLE, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # a record never begins in the last bytes of a block
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        assert kind in (1, 2, 3, 4), f"record type {kind} at byte {position}"
        parts = (b"" if kind in (1, 2) else parts) + data[position + HEADER : position + HEADER + length]
        if kind in (1, 4):
            yield parts
        position += HEADER + length


def records(run: Path) -> Iterator[Any]:
    """The messages of a folder `offline-run-*`, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = run.glob("run-*.wandb")
    for payload in payloads(file.read_bytes()):
        record = Record()
        record.ParseFromString(payload)
        yield record


def group(run: Path) -> str:
    """What the run belongs to, as W&B's pages group them."""
    return next(record.run.run_group for record in records(run) if record.HasField("run"))


def read(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that were logged and the config, of a folder `offline-run-*`. Nested keys are joined with dots."""
    rows, config = [], {}
    for record in records(run):
        if record.HasField("history"):
            rows.append(_items(record.history.item))
        for update in (record.config.update, record.run.config.update):
            config |= _items(update)
    return rows, config


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
