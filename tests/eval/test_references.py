"""The references of every board that need no run."""

from __future__ import annotations

import pytest
import torch

from dg.core.meshes import signed_volume
from dg.core.picture import over
from dg.data.image import load_reference
from dg.eval import references
from dg.eval.protocol import Item, Protocol, TruthViews, ViewSpec
from dg.io.images import write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_colours
from tests.eval.solids import lopsided

VIEWS = ViewSpec((0, -20, 0), (0, 45, 180), size=48)
PROTOCOL = Protocol("toy", list, VIEWS, ("psnr_db",), ("psnr_db",))


@pytest.fixture
def item(tmp_path) -> Item:
    """A picture without symmetry, its truth, seen from above and nearer than usual."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    alpha = (((x - 28) ** 2 + (y - 36) ** 2 < 300) | ((x > 30) & (x < 50) & (y > 10) & (y < 40))).float()
    rgba = torch.stack([x / 64, y / 64, torch.full_like(alpha, 0.3), alpha], -1)
    write_png(tmp_path / "cat.png", rgba)
    save_mesh(lopsided(), tmp_path / "cat.obj")
    return Item("cat", tmp_path / "cat.png", None, -25.0, False, 1.6, 49.1, truth=tmp_path / "cat.obj")


def test_the_card_looks_like_the_picture_from_where_it_was_taken(item, tmp_path):
    mesh = load_mesh(references.make("billboard", item, PROTOCOL, tmp_path / "run").mesh)
    source = load_reference(
        item.image, recenter=False, elevation_deg=item.elevation_deg, radius=item.radius, fovy_deg=49.1, size=96
    )
    rgb, alpha = render_colours(mesh, source.cameras, CpuMeshRasterizer(), torch.ones(3), ssaa=4)
    expected = over(source.rgba)
    inside = (alpha > 0.999) & (source.rgba[..., 3:] > 0.999)
    assert ((alpha > 0.5) == (source.rgba[..., 3:] > 0.5)).float().mean() > 0.99
    assert inside.float().mean() > 0.15
    assert (rgb - expected).abs()[inside.expand_as(rgb)].max() < 0.05
    # from behind it is the mirror image of the same shape
    back = source.cameras
    position = back.c2w.clone()
    position[:, :3, :3] = back.c2w[:, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    position[:, :3, 3] = -back.c2w[:, :3, 3]
    behind, _ = render_colours(
        mesh, type(back)(position, back.K, back.width, back.height), CpuMeshRasterizer(), torch.ones(3), ssaa=4
    )
    assert (behind.flip(2) - rgb).abs().mean() < 0.02 < (behind - rgb).abs().mean()


def test_the_card_is_flat_closed_and_faces_outwards(item, tmp_path):
    mesh = load_mesh(references.make("billboard", item, PROTOCOL, tmp_path / "run").mesh)
    normal = load_reference(item.image, recenter=False, elevation_deg=-25, radius=1.6).cameras.c2w[0, :3, 2]
    along = mesh.vertices @ normal
    assert float(along.max() - along.min()) == pytest.approx(0.016, abs=1e-4)
    assert float(along.mean()) == pytest.approx(0, abs=1e-4)
    edges = torch.cat([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    there = {tuple(e) for e in edges.tolist()}
    assert len(there) == len(edges) and all((b, a) in there for a, b in there)  # each edge once there and once back
    assert float(signed_volume(mesh.vertices, mesh.faces)) > 1e-4


def test_an_empty_mask_makes_no_card(item):
    reference = load_reference(item.image, recenter=False)
    blank = type(reference)(reference.rgba * 0, reference.cameras, reference.source)
    with pytest.raises(ValueError, match="nothing in it is opaque"):
        references.billboard(blank)


def test_the_input_copied(item):
    renders = references.make("input_copied", item, PROTOCOL, item.image.parent).renders
    assert renders.rgb.shape == (3, 48, 48, 3) and renders.alpha.shape == (3, 48, 48, 1)
    torch.testing.assert_close(renders.rgb[0], renders.rgb[2])
    expected = load_reference(item.image, recenter=False, size=48)
    assert (renders.rgb[1] - over(expected.rgba)[0]).abs().mean() < 0.02


def test_the_truth_itself(item, tmp_path):
    assert references.make("truth", item, PROTOCOL, tmp_path).mesh == item.truth
    turned = Item("cat", truth=item.truth, truth_yaw_deg=90)
    mesh, plain = (load_mesh(p) for p in (references.make("truth", turned, PROTOCOL, tmp_path).mesh, item.truth))
    x, y, z = plain.vertices.unbind(-1)
    torch.testing.assert_close(mesh.vertices.sort(0).values, torch.stack([z, y, -x], -1).sort(0).values)
    views = TruthViews((item.image,) * 3, VIEWS.cameras())
    renders = references.make("truth", Item("cat", truth_views=views), PROTOCOL, tmp_path).renders
    assert renders.rgb.shape == (3, 48, 48, 3)


def test_what_applies(item):
    assert all(references.applies(name, item) for name in references.NAMES)
    words = Item("a", prompt="a cat")
    assert not any(references.applies(name, words) for name in references.NAMES)
    with pytest.raises(ValueError, match="has nothing to make the reference truth of"):
        references.make("truth", words, PROTOCOL, item.image.parent)
    with pytest.raises(ValueError, match="there is no reference mirror"):
        references.make("mirror", item, PROTOCOL, item.image.parent)
