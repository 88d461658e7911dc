"""The object library, and the training pictures made from it and from invented objects."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dg.core import camera
from dg.data import library, procedural
from dg.data.pool import ObjectPool, pack, sample
from dg.data.training_views import ViewBank, composite, make_bank, training_pool
from dg.meshraster.cpu import CpuMeshRasterizer

FOLDER = Path(__file__).parents[2].parent / "shared" / "library"
needs_library = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/library is absent")


def as_documented(folder: Path, entry: dict):
    """The reading code of the library's README, for one object."""
    with np.load(folder / f"library_{entry['shard']}.npz") as z:
        v, uv, f = (np.cumsum(z[k], 0, dtype=np.uint16) for k in ("dv", "duv", "df"))
        tex, off = z["tex"], z["off"]
    (a, b, c), (a2, b2, c2) = off[entry["row"]], off[entry["row"] + 1]
    image = Image.open(io.BytesIO(tex[c:c2].tobytes()))
    return v[a:a2] / 2047 - 0.5, f[3 * b : 3 * b2].reshape(-1, 3), uv[a:a2] / 1023, image


@needs_library
def test_objects_are_read_as_documented():
    entries = library.index(FOLDER)
    entry = next(e for e in entries if e["shard"] == 2 and e["row"] == 17)
    (found,) = library.read(FOLDER, [entry])
    vertices, faces, uv, image = as_documented(FOLDER, entry)
    np.testing.assert_allclose(found.vertices, vertices, atol=1e-6)
    np.testing.assert_array_equal(found.faces, faces)
    np.testing.assert_allclose(found.uv, np.stack([uv[:, 0], 1 - uv[:, 1]], -1), atol=1e-6)
    np.testing.assert_array_equal(found.texture, np.asarray(image))
    assert np.isclose(np.ptp(found.vertices, 0).max(), 1, atol=2e-3)
    assert (found.name, found.licence) == (entry["id"], entry["licence"])


@needs_library
def test_only_permissive_objects_are_trained_on_and_sixteen_are_held_out():
    entries = library.index(FOLDER)
    usable = [e for e in entries if library.permissive(e)]
    assert not any("GPL" in e["licence"] for e in usable) and len(usable) > 1100
    assert all("GPL" in e["licence"] for e in entries if not library.permissive(e))
    assert sum(map(library.held_out, usable)) == 16


def test_licences_and_families():
    assert library.permissive({"licence": "CC-BY-SA-4.0 and CC-BY-SA-3.0"})
    assert not library.permissive({"licence": "GPL and CC-BY-SA"})
    assert not library.permissive({"licence": "CC-BY-SA-3.0 and GPL-3+"})
    assert library.held_out({"id": "0ad/fauna-zebra_2"}) and not library.held_out({"id": "0ad/fauna-goat"})


def test_a_missing_library_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        library.index(tmp_path)


def test_invented_objects_are_sound_and_repeatable():
    for key in range(40):
        made = procedural.random_object(np.random.default_rng(key))
        again = procedural.random_object(np.random.default_rng(key))
        np.testing.assert_array_equal(made.vertices, again.vertices)
        np.testing.assert_array_equal(made.texture, again.texture)
        low, high = made.vertices.min(0), made.vertices.max(0)
        np.testing.assert_allclose(low + high, 0, atol=1e-5)
        assert np.isclose((high - low).max(), 1, atol=1e-5)
        assert made.faces.min() >= 0 and made.faces.max() < len(made.vertices)
        assert made.uv.min() >= 0 and made.uv.max() <= 1


def test_packing_repeats_objects():
    pool = ObjectPool.of([procedural.random_object(np.random.default_rng(k)) for k in range(3)])
    packed = pack(pool, torch.tensor([2, 0, 2]))
    for instance, which in enumerate((2, 0, 2)):
        rows = packed.vertex[packed.of_vertex == instance]
        assert torch.equal(rows, torch.arange(*pool.first_vertex[which : which + 2].tolist()))


def test_sampling_is_bilinear_between_texel_centres():
    texture = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    texture[0, 0, 1], texture[0, 1, 0] = 255, 51
    uv = torch.tensor([[0.75, 0.25], [0.5, 0.25], [0.25, 0.75], [0.0, 0.0], [0.5, 0.5]])
    found = sample(texture, torch.zeros(5, dtype=torch.long), uv)[:, 0]
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 0.2, 0.0, 0.3]))


@pytest.fixture(scope="module")
def bank() -> ViewBank:
    return filled(seed=5)


def filled(seed: int) -> ViewBank:
    made = make_bank(
        torch.device("cpu"), library=None, procedural=4, rasterizer=CpuMeshRasterizer(), instances=6, targets=2,
        chunk=3, seed=seed,
    )  # fmt: skip
    made.refresh()
    return made


def test_a_bank_is_a_function_of_its_seed(bank):
    again, other = filled(seed=5), filled(seed=6)
    assert torch.equal(bank.pictures, again.pictures) and torch.equal(bank.views.azimuth, again.views.azimuth)
    assert not torch.equal(bank.pictures, other.pictures)
    resumed = filled(seed=5)
    resumed.refresh(3)
    assert resumed.rendered == 3 and torch.equal(resumed.pictures[3:], bank.pictures[3:])
    assert not torch.equal(resumed.pictures[:3], bank.pictures[:3])


def test_recentred_references_fill_the_frame(bank):
    """Every reference is recentred (fills about 0.8 of the frame) or shown at its size around the origin."""
    alpha = bank.pictures[:, 0, 3].float() / 255
    for picture in alpha:
        rows, columns = (picture.amax(d) > 0.3 for d in (1, 0))
        spans = [(x.nonzero().min().item(), x.nonzero().max().item() + 1) for x in (rows, columns)]
        longest = max(b - a for a, b in spans)
        assert 8 <= longest <= 64
    fills = [max(int((p.amax(d) > 0.3).sum()) for d in (0, 1)) / 64 for p in alpha]
    assert sum(0.7 < f < 0.9 for f in fills) >= 2


@pytest.mark.parametrize(("share", "drawn"), [(0, {2, 3, 4}), (1, {0, 1}), (0.5, {0, 1, 2, 3, 4})])
def test_the_librarys_share_of_what_is_drawn(share: float, drawn: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two objects of a library and three invented ones; 0 and 1 as the command line gives them, whole numbers."""
    shelf = procedural.invent([11, 12])
    monkeypatch.setattr(library, "index", lambda folder: [{}, {}])
    monkeypatch.setattr(library, "permissive", lambda entry: True)
    monkeypatch.setattr(library, "held_out", lambda entry: False)
    monkeypatch.setattr(library, "read", lambda folder, entries: shelf)
    made = make_bank(
        torch.device("cpu"), library="shelf", procedural=3, rasterizer=CpuMeshRasterizer(), instances=2, targets=1,
        library_share=share,
    )  # fmt: skip
    seen = made._draw_objects(4000, torch.Generator().manual_seed(0))
    assert set(seen.tolist()) == drawn
    assert float((seen < 2).float().mean()) == pytest.approx(share, abs=0.03)


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="library_share=1 of 0 library objects and 3 procedural ones leaves none"):
        training_pool(None, 3, "cpu", library_share=1)
    with pytest.raises(ValueError, match=r"library_share=65 must be from 0 to 1"):
        training_pool(None, 3, "cpu", library_share=65)


def test_batches_pair_pictures_with_their_cameras(bank):
    """A reference drawn as its own target has the reference's picture and camera."""
    generator = torch.Generator().manual_seed(0)
    batch = bank.batch(32, 3, generator)  # all three views of an instance, so the reference is among them
    same = (batch.targets.unflatten(0, (32, 3)) == batch.reference[:, None]).flatten(2).all(-1)
    assert same.any(1).all()
    c2w = batch.cameras.c2w.unflatten(0, (32, 3))
    match = (c2w - batch.reference_cameras.c2w[:, None]).abs().amax((2, 3)) < 1e-5
    assert torch.equal(match, same)
    elevation, _, radius = camera.spherical(batch.cameras)
    assert elevation.abs().max() <= 80.01 and (radius - 2).abs().max() < 0.2
    white = composite(batch.targets, torch.ones(96, 3))
    assert white.min() >= 0 and white.max() <= 1 + 1e-6


@needs_library
def test_the_pool_holds_library_then_invented_objects():
    pool, groups = training_pool(str(FOLDER), 3, "cpu")
    usable = [e for e in json.loads((FOLDER / "index.json").read_text()) if library.permissive(e)]
    assert len(pool) == len(usable) - 16 + 3
    assert groups[0][1] == groups[1][0] == len(usable) - 16 and groups[1][1] == len(pool)
