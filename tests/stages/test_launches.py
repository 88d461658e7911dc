"""What a step of stage 1 launches, and when: nothing keeps a GPU idle between the pictures and the prior's networks."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dg.raster.gsplat import GsplatRasterizer
from tests import tiny_checkpoints
from tests.stages.test_no_waiting import fit, stage
from tests.unit.test_gsplat import gsplat, rasterization  # noqa: F401  the stand-in

LAUNCH_NOTHING = {
    *("view", "detach", "permute", "slice", "select", "expand", "unsqueeze", "squeeze", "transpose", "as_strided"),
    *(
        "alias",
        "t",
        "_unsafe_view",
        "unbind",
        "split",
        "reshape",
        "_reshape_alias",
        "lift_fresh",
        "empty",
        "empty_like",
    ),
}


class Launches(TorchDispatchMode):
    """Notes operations that a GPU would get kernels for, and whatever else is told, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if name not in LAUNCH_NOTHING:
            self.events.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def events(tmp_path, gsplat, monkeypatch):  # noqa: F811
    """Of the fourth step, the last one."""
    module = stage(tiny_checkpoints.zero123(tmp_path), raster=GsplatRasterizer())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # Lightning is to find the CPU
    seen = Launches()

    def told(name, function):
        def tell(*args, **kwargs):
            seen.events.append(f"begin {name}")
            out = function(*args, **kwargs)
            seen.events.append(f"end {name}")
            return out

        return tell

    module.raster._rasterization = told("raster", rasterization)
    module.prior.__dict__["_encoder"] = told("encoder", module.prior._encode)
    module.prior.condition = told("condition", module.prior.condition)
    kind = type(module)

    class Seen(kind):
        def training_step(self, batch, batch_index):
            seen.events.clear()
            with seen:
                return super().training_step(batch, batch_index)

    module.__class__ = Seen
    fit(module, 4)
    return seen.events


def test_the_prior_is_told_before_the_rasteriser_and_looks_right_after_it(events):
    assert events.count("begin raster") == events.count("begin encoder") == events.count("begin condition") == 1
    assert events.index("end condition") < events.index("begin raster")
    between = events[events.index("end raster") + 1 : events.index("begin encoder")]
    assert len(between) <= 3, between  # clamped, resized, in the networks' precision


def test_what_densification_wants_comes_after_the_networks(events):
    """Radii and positions take some 50 launches, the known view's losses ten."""
    late = events[events.index("end encoder") :]
    assert late.count("log") == 1  # of the footprints: once, for the novel view alone
    assert late.index("log") > late.index("_foreach_norm") > late.index("nan_to_num")
    assert "log" not in events[events.index("end raster") : events.index("end encoder")]
