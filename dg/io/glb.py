"""Binary glTF 2.0 as a container (Khronos specification, sections 3 to 5): a JSON document and one buffer."""

from __future__ import annotations

import json
import struct
from typing import Any

VERTEX_DATA, INDEX_DATA = 34962, 34963


class Scene:
    """Collects the binary chunk and what describes it.

    Attributes:
        document: the JSON; its owner adds nodes, meshes and materials.
    """

    def __init__(self, generator: str, **extensions: list[str]) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": generator},
            **extensions,
            "accessors": [],
            "bufferViews": [],
        }
        self._chunk = bytearray()

    def view(self, data: bytes, **facts: int) -> int:
        """Appends bytes at a multiple of four, as accessors and chunks require; returns the view's index."""
        view = {"buffer": 0, "byteOffset": len(self._chunk), "byteLength": len(data), **facts}
        self.document["bufferViews"].append(view)
        self._chunk += data + bytes(-len(data) % 4)
        return len(self.document["bufferViews"]) - 1

    def accessor(self, **entry: Any) -> int:
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def to_bytes(self) -> bytes:
        self.document["buffers"] = [{"byteLength": len(self._chunk)}]
        text = json.dumps(self.document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(self._chunk))
        chunks = struct.pack("<I4s", len(text), b"JSON") + text, struct.pack("<I4s", len(self._chunk), b"BIN\0")
        return header + b"".join(chunks) + bytes(self._chunk)
