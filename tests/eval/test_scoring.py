from dataclasses import replace

import pytest
import torch

from dg.core.camera import orbit
from dg.eval import truth as truths
from dg.eval.catalog import CATALOG, worst
from dg.eval.clip import ClipScorer
from dg.eval.figures import figure_names, worst_scores
from dg.eval.images import psnr
from dg.eval.placement import box, turned, yaw_matrix
from dg.eval.protocol import Item, Renders, Result, TruthViews, ViewSpec
from dg.eval.scoring import score
from dg.io.images import write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.io.ply import write_ply
from dg.meshraster.render import render_colours
from tests.eval import lump
from tests.fake_clip import ColourScorer

FEW = lump.protocol(alignments=("unaligned",), points=2000, volume_resolution=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lump")


@pytest.fixture(scope="module")
def item(folder):
    return lump.item(folder)


def views_of(mesh, spec=lump.VIEWS):
    return render_colours(mesh, spec.cameras(), lump.RASTER, torch.full((3,), spec.background), ssaa=spec.ssaa)


@pytest.fixture(scope="module")
def true_views(item, folder):
    spec = replace(lump.VIEWS, background=0.0)
    rgb, alpha = views_of(load_mesh(item.truth), spec)
    paths = tuple(folder / "views" / f"{i:03d}.png" for i in range(len(rgb)))
    for path, picture in zip(paths, torch.cat([rgb / alpha.clamp_min(1e-6), alpha], -1), strict=True):
        write_png(path, picture)
    return TruthViews(paths, spec.cameras())


def splats(path, count: int = 300):
    """A cloud of round Gaussians, off-centre."""
    from dg.core.gaussians import deactivate
    from dg.types import Gaussians

    draw = torch.Generator().manual_seed(0)
    means = 0.2 * torch.randn(count, 3, generator=draw) * torch.tensor([1.0, 0.5, 0.7]) + torch.tensor([0.1, 0, 0])
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=draw), dim=1)
    scales = 0.02 + 0.05 * torch.rand(count, 3, generator=draw)
    sh = 0.3 * torch.randn(count, 4, 3, generator=draw)
    write_ply(deactivate(Gaussians(means, quats, scales, torch.full((count,), 0.8), sh)), path)
    return path


def all_metrics():
    return replace(FEW, metrics=tuple(CATALOG), clip=("openclip-ViT-bigG-14",))


def test_names_are_the_same_for_results_and_failures(item, folder, true_views):
    from dg.raster.numba_cpu import NumbaRasterizer

    protocol = all_metrics()
    items = [
        item,
        replace(item, truth=None),
        replace(item, truth=None, truth_views=true_views, prompt="a lump"),
        Item("text", prompt="a lump"),
    ]
    rgb, _ = views_of(load_mesh(item.truth))
    results = {
        "mesh": Result(mesh=item.truth),
        "splats": Result(splats=splats(folder / "splats.ply", 20)),
        "renders": Result(renders=Renders(rgb)),
    }
    scorer: ClipScorer = ColourScorer()
    for case in items:
        for stage, result in results.items():
            found = score(result, case, protocol, lump.RASTER, NumbaRasterizer(), [scorer])
            values, blanks = worst_scores(protocol, case, stage, loaded=[scorer.name])
            assert list(found.values) == list(values) == figure_names(protocol, case, [scorer.name])
            for name, value in found.values.items():
                assert (value is None) == (name in found.blanks), name
                if value is None:
                    continue
                failed = values[name]
                assert failed == worst(name), name  # what a success has, a failure has
                if failed is not None:
                    assert (
                        (value >= failed) if CATALOG[name.partition("/")[0]].better == "higher" else (value <= failed)
                    )
            assert set(blanks) <= set(found.blanks) | {n for n in values if worst(n) is None}


def test_blanks_say_why(item, folder):
    protocol = all_metrics()
    rgb, _ = views_of(load_mesh(item.truth))
    found = score(Result(renders=Renders(rgb)), item, protocol, lump.RASTER)
    assert found.blanks["chamfer/unaligned"] == found.blanks["watertight"] == "there are only pictures, no mesh"
    assert found.blanks["silhouette_iou/front"] == found.blanks["input_iou"] == "the pictures have no alpha"
    assert found.blanks["clip_image/openclip-ViT-bigG-14"] == "openclip-ViT-bigG-14 is not loaded"
    assert "torch's cache" in found.blanks["lpips_vgg"] or found.values["lpips_vgg"] == 0
    frontal = replace(FEW, views=ViewSpec((0.0,), (90.0,), size=32))
    found = score(Result(renders=Renders(rgb[:1])), item, frontal, lump.RASTER)
    assert found.blanks["psnr_db/back"] == "no view of the protocol is there"
    assert (
        found.blanks["input_psnr_db"]
        == found.blanks["mirrored_front"]
        == "there are only pictures, and none from there"
    )


def test_pictures_score_as_the_mesh_that_they_show(item):
    mesh = lump.scaled(load_mesh(item.truth), 0.9)
    save_mesh(mesh, item.truth.parent / "smaller.glb")
    from_mesh = score(Result(mesh=item.truth.parent / "smaller.glb"), item, FEW, lump.RASTER).values
    from_views = score(Result(renders=Renders(*views_of(mesh))), item, FEW, lump.RASTER).values
    for name, value in from_views.items():
        if value is not None:
            assert value == pytest.approx(from_mesh[name], abs=1e-3), name
    assert from_views["input_psnr_db"] is not None and from_views["mirrored_front"] is not None


def test_given_views_replace_the_renders_of_the_truth(item, true_views):
    from_mesh = score(Result(mesh=item.truth), item, FEW, lump.RASTER)
    given = replace(item, truth=None, truth_views=true_views)
    found = score(Result(mesh=item.truth), given, FEW, lump.RASTER)
    assert "chamfer/unaligned" not in found.values and "psnr_db/hidden" not in found.values
    assert found.values["psnr_db"] > 50  # 8 bits
    assert found.values["silhouette_iou"] > 0.998
    torch.testing.assert_close(found.truth_rgb, from_mesh.truth_rgb, atol=1 / 255, rtol=0)
    small = TruthViews(true_views.pictures, true_views.cameras.resized(32, 32))
    with pytest.raises(ValueError, match=r"000\.png is 64 x 64, its camera 32 x 32"):
        score(Result(mesh=item.truth), replace(given, truth_views=small), FEW, lump.RASTER)


def test_axes_and_yaw_bring_both_into_our_frame(item, folder):
    mesh = load_mesh(item.truth)
    z_up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # ours (y up) -> theirs
    save_mesh(turned(mesh, 2 * z_up), folder / "foreign.glb")
    save_mesh(turned(mesh, yaw_matrix(-40)), folder / "turned_truth.glb")
    theirs = replace(item, truth=folder / "turned_truth.glb", truth_yaw_deg=40)
    found = score(Result(mesh=folder / "foreign.glb", axes=0.5 * z_up.T), theirs, FEW, lump.RASTER).values
    assert found["psnr_db"] > 60 and found["chamfer/unaligned"] < 1e-6 and found["input_psnr_db"] > 55
    mirror = torch.diag(torch.tensor([-1.0, 1, 1]))
    flipped = turned(mesh, mirror)
    assert torch.equal(turned(flipped, mirror).faces, mesh.faces)  # turned over twice
    save_mesh(flipped, folder / "flipped.glb")
    assert score(Result(mesh=folder / "flipped.glb", axes=mirror), item, FEW, lump.RASTER).values["psnr_db"] > 60


def test_splats_with_axes_look_as_the_moved_splats_would(item, folder):
    """The cameras move instead, so colours that depend on the direction come out right."""
    from dg.core.gaussians import activate
    from dg.eval.placement import seen_through
    from dg.io.ply import read_ply
    from dg.raster.numba_cpu import NumbaRasterizer

    path = splats(folder / "plain.ply")
    gaussians = activate(read_ply(path))
    axes = 1.5 * yaw_matrix(30)
    camera = orbit(-10.0, 70.0, 3.0, height=48)
    seen = NumbaRasterizer()(gaussians, seen_through(camera, axes, torch.tensor([0.1, 0, -0.2])), torch.ones(3))
    # the same by hand: flat colours, turned and scaled Gaussians
    flat = replace(gaussians, sh=gaussians.sh[:, :1])
    seen_flat = NumbaRasterizer()(flat, seen_through(camera, axes, torch.tensor([0.1, 0, -0.2])), torch.ones(3))
    half = torch.deg2rad(torch.tensor(15.0))
    w, y = half.cos(), half.sin()
    a, b, c, d = flat.quats.unbind(1)
    quats = torch.stack([w * a - y * c, w * b + y * d, w * c + y * a, w * d - y * b], 1)
    moved = replace(
        flat, means=flat.means @ axes.T + torch.tensor([0.1, 0, -0.2]), quats=quats, scales=1.5 * flat.scales
    )
    torch.testing.assert_close(seen_flat.rgb, NumbaRasterizer()(moved, camera, torch.ones(3)).rgb, atol=2e-3, rtol=0)
    assert (seen.rgb - seen_flat.rgb).abs().max() > 0.01
    with pytest.raises(ValueError, match="axes must be a rotation"):
        seen_through(camera, torch.diag(torch.tensor([1.0, 2, 1])), torch.zeros(3))
    with pytest.raises(ValueError, match="need a rasteriser"):
        score(Result(splats=path), item, FEW, lump.RASTER)
    found = score(Result(splats=path), item, FEW, lump.RASTER, NumbaRasterizer())
    assert found.values["psnr_db"] > 0 and found.blanks["chamfer/unaligned"] == "splats have no surface"


def test_without_truth_size_and_framing_are_free(item, folder):
    """A recentred input against a result of any size and place."""
    mesh = load_mesh(item.truth)
    save_mesh(replace(mesh, vertices=7 * mesh.vertices + torch.tensor([1.0, 2, 3])), folder / "far.glb")
    camera = orbit(-15.0, 0.0, 2.0, height=256)
    rgb, alpha = render_colours(mesh, camera, lump.RASTER, torch.zeros(3), ssaa=2)
    write_png(folder / "above.png", torch.cat([rgb / alpha.clamp_min(1e-6), alpha], -1)[0])
    free = replace(FEW, normalise="extent")
    alone = Item("alone", folder / "above.png", elevation_deg=-15)
    found = score(Result(mesh=folder / "far.glb"), alone, free, lump.RASTER).values
    assert found["input_iou"] > 0.96 and found["input_psnr_db"] > 24
    level = score(Result(mesh=folder / "far.glb"), replace(alone, elevation_deg=15), free, lump.RASTER).values
    assert level["input_psnr_db"] < found["input_psnr_db"] - 5
    assert "psnr_db" not in found and found["saturation_error"] < 0.1


def test_visible_and_hidden_part_the_truth_where_the_input_ends(item):
    truth = truths.truth_of(item, FEW, lump.RASTER)
    shown, points = truth.shown_samples, truth.samples.points
    normals = truth.samples.normals
    towards = torch.tensor([0.0, 0, 2]).numpy() - points
    facing = (normals * towards).sum(1) / (towards**2).sum(1) ** 0.5
    assert shown[facing > 0.3].mean() > 0.97 and shown[facing < -0.2].mean() < 0.02
    visible, hidden = truth.pixels
    covered = truth.pictures[1][..., 0] > 0.99
    assert not (visible & hidden).any() and ((visible | hidden) | ~covered).all()
    front, back = visible.flatten(1).sum(1)[[0, 4]].tolist()
    assert front > 50 * max(back, 1) and hidden[4].sum() > 300


def test_a_normalised_truth_is_brought_to_the_middle(item, folder):
    mesh = load_mesh(item.truth)
    shift = torch.tensor([0.4, -0.3, 0.2])
    save_mesh(replace(mesh, vertices=0.5 * mesh.vertices + shift), folder / "off.glb")
    away = replace(item, truth=folder / "off.glb", image=None)
    found = score(Result(mesh=item.truth), away, replace(FEW, normalise="extent"), lump.RASTER)
    assert found.values["psnr_db"] > 60 and found.values["chamfer/unaligned"] < 1e-5
    truth = truths.truth_of(away, replace(FEW, normalise="extent"), lump.RASTER)
    assert truth.box.centre.abs().max() < 1e-6 and truth.box.longest == pytest.approx(0.5)
    assert box(load_mesh(away.truth).vertices).centre.abs().max() > 0.1


def test_failures_are_raised(item, folder):
    (folder / "empty.obj").write_text("")
    (folder / "broken.glb").write_bytes(b"glTF nonsense")
    for name in ("empty.obj", "broken.glb"):
        with pytest.raises(ValueError, match=name):
            score(Result(mesh=folder / name), item, FEW, lump.RASTER)
    with pytest.raises(FileNotFoundError, match=r"absent\.glb"):
        score(Result(mesh=folder / "absent.glb"), item, FEW, lump.RASTER)
    with pytest.raises(ValueError, match="neither a mesh nor splats nor renders"):
        score(Result(), item, FEW, lump.RASTER)
    rgb, _ = views_of(load_mesh(item.truth))
    with pytest.raises(ValueError, match="3 renders, but the protocol has 8 views"):
        score(Result(renders=Renders(rgb[:3])), item, FEW, lump.RASTER)


def test_truths_are_computed_once_and_told_apart_by_content(item, folder, monkeypatch):
    copy = folder / "copy.glb"
    copy.write_bytes(item.truth.read_bytes())
    same = replace(item, truth=copy)
    first = truths.truth_of(same, FEW, lump.RASTER)
    assert truths.truth_of(same, FEW, lump.RASTER) is first
    assert truths.truth_of(replace(same, name="other"), FEW, lump.RASTER) is first
    assert truths.truth_of(replace(same, elevation_deg=-20), FEW, lump.RASTER) is not first
    assert truths.truth_of(same, replace(FEW, points=100), lump.RASTER) is not first
    save_mesh(lump.scaled(load_mesh(item.truth)), copy)
    changed = truths.truth_of(same, FEW, lump.RASTER)
    assert changed is not first and changed.box.longest == pytest.approx(0.8)
    monkeypatch.setattr(truths, "_KEPT", 2)
    for degrees in range(4):
        truths.truth_of(replace(same, elevation_deg=degrees), FEW, lump.RASTER)
    assert len(truths._truths) == 2


def test_clip_figures_are_means_over_the_views(item):
    protocol = replace(FEW, metrics=("clip_image", "clip_text"), headline=())
    found = score(Result(mesh=item.truth), replace(item, prompt="four"), protocol, lump.RASTER, clip=[ColourScorer()])
    pictures = found.rgb.movedim(-1, 1)
    source = truths.whole_input(item).movedim(-1, 0)[None]
    expected = ColourScorer().image_image(source, pictures)[0]
    assert found.values["clip_image/mean colour"] == pytest.approx(float(expected.mean()))
    assert found.values["clip_image/mean colour/back"] == pytest.approx(float(expected[3:6].mean()))
    assert found.values["clip_text/mean colour"] == pytest.approx(0.04)


def test_the_front_view_is_the_input(item):
    """Anchors the input's figures to the picture itself."""
    mesh = load_mesh(item.truth)
    found = score(Result(mesh=item.truth), item, FEW, lump.RASTER).values
    camera = orbit(0.0, 0.0, 2.0, height=64)
    rgb, _ = render_colours(mesh, camera, lump.RASTER, torch.ones(3), ssaa=2)
    rgba = truths.input_of(item, 64)
    source = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    assert found["input_psnr_db"] == pytest.approx(float(psnr(rgb, source[None])), abs=1e-3)


def test_lengths_are_in_units_of_the_truth(item, folder):
    mesh = load_mesh(item.truth)
    save_mesh(lump.scaled(mesh, 0.95), folder / "less.glb")
    save_mesh(lump.scaled(mesh, 3), folder / "truth3.glb")
    save_mesh(lump.scaled(mesh, 3 * 0.95), folder / "less3.glb")
    shapes = replace(FEW, metrics=("chamfer", "f_score@0.02", "normal_consistency", "volume_iou"), headline=())
    bare = replace(item, image=None)
    small = score(Result(mesh=folder / "less.glb"), bare, shapes, lump.RASTER).values
    large = score(Result(mesh=folder / "less3.glb"), replace(bare, truth=folder / "truth3.glb"), shapes, lump.RASTER)
    assert large.values == pytest.approx(small, abs=2e-3)
    assert 0.01 < small["chamfer/unaligned"] < 0.03


def test_no_result_is_given_less_than_a_failure(item, folder):
    mesh = load_mesh(item.truth)
    save_mesh(replace(mesh, vertices=mesh.vertices + 40), folder / "lost.glb")
    found = score(Result(mesh=folder / "lost.glb"), item, FEW, lump.RASTER).values
    assert found["chamfer/unaligned"] == found["chamfer/hidden"] == 1.0
    assert found["silhouette_iou"] == found["f_score@0.05/unaligned"] == 0.0


def test_only_the_visible_surface_counts_where_the_protocol_says_so(item, folder):
    save_mesh(lump.hollow(load_mesh(item.truth)), folder / "hollow.glb")
    shapes = replace(FEW, metrics=("chamfer", "f_score@0.02"), headline=(), surface="visible")
    perfect = score(Result(mesh=item.truth), item, shapes, lump.RASTER).values
    assert perfect["chamfer/unaligned"] == perfect["chamfer/visible"] == 0 and perfect["f_score@0.02/unaligned"] == 1
    assert score(Result(mesh=folder / "hollow.glb"), item, shapes, lump.RASTER).values == pytest.approx(perfect)
    whole = replace(shapes, surface="all")
    assert score(Result(mesh=folder / "hollow.glb"), item, whole, lump.RASTER).values["chamfer/unaligned"] > 0.02
