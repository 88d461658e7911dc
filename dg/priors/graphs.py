"""Networks of fixed shapes as CUDA graphs: launched by one call instead of a thousand.

A diffusion network at batch 2 spends its time launching kernels, not in them (measured on an H100 with a full-size
Zero123: 40 ms eager, 8 ms as a graph, 5.4 ms as a graph in channels-last layout). A graph reads and writes fixed
memory, so inputs are copied in, and what is handed out is a copy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dg.priors.fused_norms import fuse_group_norms
from dg.priors.group_norm import kernels_work

log = logging.getLogger("dg")

Compile = Literal["auto", "graph", "full", "none"]
MODES = ("auto", "graph", "full", "none")
KEPT = 6  # recordings of one function: each keeps memory for all of its intermediate values
WARM_UP = 2  # runs before recording: libraries choose algorithms and get workspace, which no recording may do
FUSED_NORMS = True  # `fast_layout` replaces group norms; the benchmark of the networks measures without, too


def checked_mode(mode: str, device: torch.device) -> Compile:
    """What `prior.compile` means here: auto is `graph` on a GPU and `none` elsewhere.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"prior.compile={mode} is not one of {', '.join(MODES)}")
    if mode == "auto":
        return "graph" if device.type == "cuda" else "none"
    if mode == "graph" and device.type != "cuda":
        log.warning("prior.compile=graph needs a CUDA device; on %s the networks run eagerly", device)
        return "none"
    return mode  # type: ignore[return-value]


def fast_layout(unet: torch.nn.Module, vae: torch.nn.Module, device: torch.device, mode: Compile) -> None:
    """On a GPU: convolutions in channels-last order, in which tensor cores read their inputs. Elsewhere nothing.

    Where torch's group norms can be replaced by those that know this order, they are, and the autoencoder is brought
    into it too; with torch's it would be a fifth slower (docs/gpu_speed.md). torch.compile makes kernels of its own.
    """
    if device.type != "cuda":
        return
    networks = [unet]
    if FUSED_NORMS and mode != "full" and kernels_work(device):
        networks.append(vae)
        for network in networks:
            fuse_group_norms(network)
    for network in networks:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def accelerated(
    function: Callable[..., Tensor], mode: Compile, device: torch.device, name: str
) -> Callable[..., Tensor]:
    """`function` of tensors as `mode` says; see `Replayed` for what is asked of it.

    `full` compiles first (a minute or more; what was compiled is kept on disk for the next process).
    """
    if mode == "none":
        return function
    if mode == "full":
        keep_compiled()
        function = torch.compile(function, dynamic=False)
    return Replayed(function, name) if device.type == "cuda" else function


def keep_compiled() -> None:
    """Makes torch.compile keep its work in ~/.cache/dg/inductor (TORCHINDUCTOR_CACHE_DIR beats it), not in /tmp."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dg" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")


class Tape(Protocol):
    """Work recorded once, done again on the same memory."""

    def record(self, work: Callable[[], Any]) -> None: ...

    def replay(self) -> None: ...


class CudaTape:
    """Args:
    pool: of another tape that is always replayed before this one, to share its memory.
    """

    def __init__(self, pool: Any = None) -> None:
        self.graph, self.pool = torch.cuda.CUDAGraph(), pool

    def record(self, work: Callable[[], Any]) -> None:
        # other threads (loggers, loaders) may use the GPU meanwhile
        with torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local"):
            work()
        self.pool = self.graph.pool()

    def replay(self) -> None:
        self.graph.replay()


class Replayed:
    """A function that does the same for the same shapes, recorded for each set of shapes at its second call.

    The first call runs eagerly, since much is called only once. Where recording fails, one warning is logged and the
    function runs eagerly from then on; so it does for shapes beyond the first few. Differentiable, once, in its first
    input; the others are constants. The one backward pass must come before the next forward pass of that shape.

    Args:
        function: of tensors on one device, to one tensor; without random numbers, looks at no value on the host, and
            what it reads besides its inputs (weights) stays where it is.
        name: of it, for the warning.
    """

    def __init__(self, function: Callable[..., Tensor], name: str, tape: Callable[..., Tape] = CudaTape) -> None:
        self.function, self.name, self.tape = function, name, tape
        self.recordings: dict[Any, _Recording | None] = {}
        self.failed = False

    def __call__(self, first: Tensor, *others: Tensor) -> Tensor:
        if self.failed:
            return self.function(first, *others)
        differentiable = torch.is_grad_enabled() and first.requires_grad
        key = (differentiable, *((x.shape, x.dtype, x.device) for x in (first, *others)))
        if key not in self.recordings:
            if len(self.recordings) < KEPT:
                self.recordings[key] = None
            return self.function(first, *others)
        recording = self.recordings[key] or self._record(key, differentiable, (first, *others))
        if recording is None:
            return self.function(first, *others)
        if differentiable:
            return _Replay.apply(recording, first, *others)
        return recording.forward((first, *others))

    def _record(self, key: Any, differentiable: bool, inputs: tuple[Tensor, ...]) -> _Recording | None:
        try:
            self.recordings[key] = _Recording(self.function, differentiable, inputs, self.tape)
        except RuntimeError as error:  # also out of memory
            self.failed = True
            self.recordings.clear()
            log.warning(
                "%s cannot be a CUDA graph here and runs eagerly, which is slower (%s: %s)",
                self.name,
                type(error).__name__,
                " ".join(str(error).split())[:200],
            )
            return None
        return self.recordings[key]


class _Recording:
    """One set of shapes: fixed inputs and outputs, and what turns the former into the latter."""

    def __init__(
        self, function: Callable[..., Tensor], differentiable: bool, inputs: tuple[Tensor, ...], tape: Callable
    ) -> None:
        self.function, self.turn = function, 0
        self.inputs = [torch.empty_like(x, requires_grad=False).copy_(x.detach()) for x in inputs]
        self.inputs[0].requires_grad_(differentiable)
        self.gradient_out = self.gradient_in = None
        self._warm_up(differentiable)
        self.forward_tape, self.backward_tape = tape(), None
        with torch.set_grad_enabled(differentiable):
            self.forward_tape.record(self._run)
        if differentiable:
            self.gradient_out = torch.zeros_like(self.output)
            self.backward_tape = tape(getattr(self.forward_tape, "pool", None))
            self.backward_tape.record(self._pull)

    def _run(self) -> None:
        self.output = self.function(*self.inputs)

    def _pull(self) -> None:
        (self.gradient_in,) = torch.autograd.grad(self.output, self.inputs[0], self.gradient_out)

    def _warm_up(self, differentiable: bool) -> None:
        def once() -> None:
            with torch.set_grad_enabled(differentiable):
                output = self.function(*self.inputs)
                if differentiable:
                    torch.autograd.grad(output, self.inputs[0], torch.zeros_like(output))

        device = self.inputs[0].device
        if device.type != "cuda":
            return once()
        here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                once()
        here.wait_stream(side)

    @torch.no_grad()
    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for fixed, value in zip(self.inputs, inputs, strict=True):
            fixed.copy_(value)
        self.forward_tape.replay()
        self.turn += 1
        return self.output.detach().clone()

    @torch.no_grad()
    def backward(self, gradient: Tensor, turn: int) -> Tensor:
        if turn != self.turn:
            raise RuntimeError("a CUDA graph was run again before, or has done, the backward pass of this run")
        self.turn += 1  # the pass writes over what it has read: there is no second one
        self.gradient_out.copy_(gradient)
        self.backward_tape.replay()
        return self.gradient_in.clone()


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, first: Tensor, *others: Tensor) -> Tensor:
        out = recording.forward((first, *others))
        ctx.recording, ctx.turn, ctx.others = recording, recording.turn, len(others)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, ctx.recording.backward(gradient, ctx.turn), *(None,) * ctx.others
