"""evaluate.py with several objects at a time: what comes out, what is logged where, and what a failure leaves alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from dg.core.rng import generator
from dg.data import objects
from dg.io.images import write_png
from dg.io.ply import read_ply
from dg.priors.mini_net import MiniConfig, MiniNet
from dg.priors.zero123_mini import Zero123Mini, save
from dg.runtime import compose, launch
from dg.runtime.errors import Interrupted, UserError
from dg.runtime.evaluation import evaluate
from dg.runtime.evaluation.options import EvaluateRoot
from tests import shapes
from tests.runs import CONF

SMALL = ["debug=fast", "device=cpu", "threads=1", "mesh.resolution=24", "mesh.max_faces=600", "measure=[mesh]"]
SMALL += ["optim.quats=0"]  # the rounding of round Gaussians' rotations, enlarged by Adam, would not be the same
SMALL += ["references=[]", "protocol.views.size=32", "protocol.views.ssaa=1", "prior=zero123_mini"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balls and a picture that is none, and a small prior with random weights."""
    folder = tmp_path_factory.mktemp("set")
    for i, radius in enumerate((0.5, 0.4)):
        mesh = shapes.ball(torch.rand(8, 8, 3, generator=generator(i, "ball")), radius, 12)
        write_png(folder / f"ball{i}.png", objects.picture(mesh, 64))
    (folder / "broken.png").write_bytes(b"no picture")
    names = ["ball0.png", "broken.png", "ball1.png"]
    (folder / "list.csv").write_text("\n".join(["image,recenter", *(f"{n},false" for n in names), ""]))
    net = MiniNet(MiniConfig(image_size=32, width=32, depth=2, heads=1, modulation=16))
    for n, parameter in enumerate(net.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=generator(n, "weights"))
    save(net, folder / "weights.safetensors")
    return folder


def evaluated(place: Path, out: Path, *overrides: str) -> dict[str, dict]:
    """The records of the objects."""
    given = [f"images={place / 'list.csv'}", f"prior.checkpoint={place / 'weights.safetensors'}", f"outdir={out}"]
    words = [*SMALL, *given, *overrides]
    plain = launch.prepare(compose.compose(CONF, "evaluate", words), CONF, None, EvaluateRoot)
    evaluate.run(launch.Job(plain, "test", words))
    lines = (out / "leaderboard" / "records.jsonl").read_text().splitlines()
    return {r["item"]: r for r in map(json.loads, lines)}


def folders(out: Path) -> dict[str, Path]:
    return {p.parent.name.split("-")[0]: p.parent for p in out.rglob("config.yaml")}


def test_objects_together_are_the_objects_alone(place: Path, tmp_path: Path) -> None:
    alone = evaluated(place, tmp_path / "alone", "together=1")
    both = evaluated(place, tmp_path / "both", "together=3")
    assert set(both) == {"ball0", "ball1", "broken"} and both["broken"]["failure"]
    singly, jointly = folders(tmp_path / "alone"), folders(tmp_path / "both")
    for name in ("ball0", "ball1"):
        assert both[name]["failure"] is None and both[name]["key"] == alone[name]["key"]
        one, other = (read_ply(f[name] / "gaussians.ply").as_dict() for f in (singly, jointly))
        for field in ("means", "sh_dc", "opacity_logits", "log_scales"):
            torch.testing.assert_close(one[field], other[field], rtol=0, atol=1e-4)
        said = (jointly[name] / "log.txt").read_text()
        assert f"{jointly[name]}" in said and "gaussians 6/6" in said and "broken" not in said
        assert said.count("gaussians 6/6") == 1  # not the other's
        manifest = json.loads((jointly[name] / "manifest.json").read_text())
        assert manifest["status"] == "done" and manifest["prior"]["prior"] == "Zero123Mini"
        assert both[name]["scores"]["seconds"] > 0
    board = (tmp_path / "both" / "leaderboard" / "log.txt").read_text()
    assert "3 objects at a time" in board and "[3/3]" in board and "gaussians 6/6" not in board


def test_an_interrupted_set_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Ctrl-C in the middle of both objects' steps."""
    plain, calls = Zero123Mini.predict, []

    def predict(self, z, t, cond):
        calls.append(len(z))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return plain(self, z, t, cond)

    monkeypatch.setattr(Zero123Mini, "predict", predict)
    with pytest.raises(Interrupted):
        evaluated(place, tmp_path, "together=2", "checkpoint_every=100")
    assert calls[:3] == [1, 1, 1] or calls[:3] == [2, 2, 2]
    states = [json.loads((f / "manifest.json").read_text())["status"] for f in folders(tmp_path).values()]
    assert "interrupted" in states
    found = evaluated(place, tmp_path, "together=2", "checkpoint_every=100")
    assert {name for name, record in found.items() if record["failure"] is None} == {"ball0", "ball1"}
    said = "".join((f / "log.txt").read_text() for f in folders(tmp_path).values())
    assert "going on after step 3 of 6" in said


@pytest.mark.parametrize("value", ["0", "many", "2.5"])
def test_a_wrong_number_is_told(place: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match="together="):
        evaluated(place, tmp_path, f"together={value}")
