"""Videos that browsers and presentation programs play: H.264, yuv420p."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import imageio.v2 as imageio
from jaxtyping import Float
from torch import Tensor

from dg.io.files import atomic
from dg.io.images import to_uint8


def write_mp4(path: Path, frames: Iterable[Float[Tensor, "H W 3"]], fps: float) -> None:
    """Frames in [0, 1], all of one size; an odd row or column at the edge is dropped, since yuv420p has none.

    Raises:
        RuntimeError, OSError: ffmpeg is not there or refuses.
    """
    with (
        atomic(path) as temporary,
        imageio.get_writer(
            temporary,
            format="FFMPEG",
            fps=fps,
            codec="libx264",
            quality=8,
            macro_block_size=1,
            ffmpeg_log_level="error",
        ) as writer,
    ):
        for frame in frames:
            height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
            writer.append_data(to_uint8(frame[:height, :width]))
