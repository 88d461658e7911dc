"""The network of `zero123_mini` run by OpenVINO on a CPU: the same float32 answers to 1e-6, about twice as fast.

Torch's eager operators each wake the threads up again and read the tokens anew; OpenVINO fuses what lies between the
matrix products. Figures: docs/prior_speed.md. Optional: `pip install openvino`.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dg.priors.mini_net import KeysValues, MiniNet, spread

INSTALL = "pip install openvino"
BACKENDS = ("torch", "openvino", "openvino_bf16", "auto")


def resolve(backend: str) -> str:
    """torch, openvino or openvino_bf16; auto is openvino where it is installed.

    Raises:
        ValueError, ImportError: an unknown name; a package that is not installed. The message has the mend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend} is none of {', '.join(BACKENDS)}")
    present = importlib.util.find_spec("openvino") is not None
    if backend == "auto":
        return "openvino" if present else "torch"
    if backend != "torch" and not present:
        raise ImportError(f"backend={backend} needs OpenVINO: {INSTALL}, or use backend=torch")
    return backend


class Flat(nn.Module):
    """The network with the reference's keys and values as inputs of their own, as exporters want them; gives x_0."""

    def __init__(self, net: MiniNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_t: Tensor, t: Tensor, alpha_bar: Tensor, rays: Tensor, vector: Tensor, *kept: Tensor) -> Tensor:
        pairs = list(zip(kept[::2], kept[1::2], strict=True))
        return self.net(x_t, t, alpha_bar, rays, vector, pairs)[1]


def flat_inputs(
    x_t: Float[Tensor, "B 3 H W"],
    t: Float[Tensor, B],
    alpha_bar: Float[Tensor, B],
    rays: Float[Tensor, "B N 6"],
    vector: Float[Tensor, "B d"],
    reference: KeysValues,
) -> tuple[Tensor, ...]:
    """`MiniNet.forward`'s arguments as `Flat` takes them."""
    kept = [x for pair in reference for x in spread(pair, len(x_t))]
    return tuple(x.detach().contiguous() for x in (x_t, t, alpha_bar, rays, vector, *kept))


class OpenVinoNet:
    """Converts the network at the first call (about 3 s); later changes of its weights are not seen.

    Args:
        precision: f32, or bf16 where the processor multiplies it (AMX, AVX512_BF16).

    Raises:
        ValueError: bf16 on a processor without it.
    """

    def __init__(self, net: MiniNet, precision: str = "f32") -> None:
        import openvino

        self._core: Any = openvino.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ValueError("backend=openvino_bf16: this processor has no bf16; use backend=openvino")
        self.net, self.precision = net, precision
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Float[Tensor, "B 3 H W"]:
        """x_0 for the arguments of `MiniNet.forward`, on the CPU."""
        given = flat_inputs(*arguments)
        if self._compiled is None:
            self._compiled = self._convert(given)
        (answer,) = self._compiled([x.numpy() for x in given], share_inputs=True).values()
        return torch.from_numpy(answer.copy())

    def _convert(self, example: tuple[Tensor, ...]) -> Any:
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing asks about every loop; the batch stays free nevertheless (tested)
            model = openvino.convert_model(Flat(self.net), example_input=example)
        hints = {"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY"}
        hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
        return self._core.compile_model(model, "CPU", hints)
