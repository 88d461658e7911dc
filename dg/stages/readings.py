"""Numbers of a step on their way from the GPU to whoever waits for them, without the step waiting.

Asking a GPU for a number stops the host until every kernel before it has run, and the GPU then idles until the host has
launched the next ones. So numbers are copied behind the kernels and looked at in a later step. On a CPU they are there
at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Receive = Callable[[list[float]], None]
LONGEST = 16  # that may be under way; beyond, the oldest is waited for
UNTOLD = 4  # that are under way where no GPU says what has arrived


class Readings:
    """Args:
    device: where the numbers are computed.
    late: whether they are handed over in a later step; null: on a GPU.
    """

    def __init__(self, device: torch.device, late: bool | None = None) -> None:
        self.device, self.late = device, device.type == "cuda" if late is None else late
        self._queue: deque[tuple[torch.cuda.Event | None, Tensor, Receive]] = deque()

    def put(self, values: Tensor, receive: Receive) -> None:
        """Hands the numbers [n] to `receive`, in the order of the calls; what it raises comes out of here, or later."""
        if not self.late:
            receive(values.tolist())
            return
        while self._queue and self._arrived(self._queue[0][0]):
            self._first()
        host, event = values.detach(), None
        if values.device.type == "cuda":
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values.detach(), non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._queue.append((event, host, receive))
        if len(self._queue) > LONGEST:
            self._first()

    def settle(self) -> None:
        """Waits for all that is under way and hands it over."""
        while self._queue:
            self._first()

    def _arrived(self, event: torch.cuda.Event | None) -> bool:
        return event.query() if event is not None else len(self._queue) > UNTOLD

    def _first(self) -> None:
        event, host, receive = self._queue.popleft()
        if event is not None:
            event.synchronize()
        receive(host.tolist())


class Guard:
    """Keeps a step that is not finite from changing the state, and tells of it.

    On a CPU at once. On a GPU the fused Adam is told to leave everything as it is from that step on (`found_inf`), and
    the error follows when the step's numbers have arrived.

    Args:
        describe: (step, names of the parameters whose gradients are not finite, or none: the loss is not) -> message.
    """

    def __init__(self, readings: Readings, describe: Callable[[int, list[str]], str]) -> None:
        self.readings, self.describe = readings, describe
        self.stopped: Tensor | None = None  # 1 from the first bad step on

    def look(self, step: int, total: Tensor, params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Call after the backward pass and before the optimiser's step.

        Raises:
            FloatingPointError: this step, or a step before it, is not finite.
        """
        grads = {name: p.grad for name, p in params.items() if p.grad is not None and p.grad.numel()}
        largest = torch._foreach_norm(list(grads.values()), float("inf")) if grads else ()
        values = torch.stack([total.detach().float(), *(x.float() for x in largest)])
        if self.readings.late:
            bad = (~values.isfinite()).any().float()
            self.stopped = bad if self.stopped is None else torch.maximum(self.stopped, bad)
            optimizer.found_inf = self.stopped  # type: ignore[attr-defined]
        self.readings.put(values, lambda numbers: self._judge(step, list(grads), numbers))

    def spared(self, change: Tensor) -> Tensor:
        """A change of parameters that is no optimiser's; none from the first bad step on."""
        return change if self.stopped is None else change * (1 - self.stopped).to(change.device)

    def _judge(self, step: int, names: list[str], numbers: list[float]) -> None:
        finite = [abs(x) < float("inf") for x in numbers]
        if not all(finite):
            bad = [name for name, fine in zip(names, finite[1:], strict=True) if not fine]
            raise FloatingPointError(self.describe(step, bad))
