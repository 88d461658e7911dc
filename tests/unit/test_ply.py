"""Gaussians as ply files: bytes, round trips, foreign orders, broken files."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dg.core.gaussians import RawGaussians
from dg.io.ply import property_names, read_ply, write_ply

HEADER_0 = b"""ply
format binary_little_endian 1.0
element vertex 2
property float x
property float y
property float z
property float nx
property float ny
property float nz
property float f_dc_0
property float f_dc_1
property float f_dc_2
property float opacity
property float scale_0
property float scale_1
property float scale_2
property float rot_0
property float rot_1
property float rot_2
property float rot_3
end_header
"""


def _raw(n: int, degree: int, seed: int = 0) -> RawGaussians:
    g = torch.Generator().manual_seed(seed)
    shapes = [(n, 3), (n, 1, 3), (n, (degree + 1) ** 2 - 1, 3), (n, 1), (n, 3), (n, 4)]
    return RawGaussians(*(torch.randn(shape, generator=g) for shape in shapes))


def _assert_same(a: RawGaussians, b: RawGaussians) -> None:
    for name, value in a.as_dict().items():
        assert torch.equal(value, getattr(b, name)), name


def test_bytes(tmp_path):
    raw = _raw(2, 0)
    write_ply(raw, tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    assert data[: len(HEADER_0)] == HEADER_0
    first = [*raw.means[0], 0, 0, 0, *raw.sh_dc[0, 0], raw.opacity_logits[0], *raw.log_scales[0], *raw.quats[0]]
    assert data[len(HEADER_0) :][:68] == struct.pack("<17f", *map(float, first))
    assert len(data) == len(HEADER_0) + 2 * 68


def test_order_of_properties_with_higher_degrees():
    names = property_names(3)
    assert names[6:12] == ["f_dc_0", "f_dc_1", "f_dc_2", "f_rest_0", "f_rest_1", "f_rest_2"]
    assert names[-9:] == ["f_rest_8", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [len(property_names(k)) for k in (0, 3, 8, 15)] == [17, 26, 41, 62]


def test_sh_is_written_channel_by_channel(tmp_path):
    raw = _raw(1, 1)
    raw.sh_rest[0] = torch.tensor([[11.0, 21, 31], [12, 22, 32], [13, 23, 33]])  # coefficient k of channel c: 10 c + k
    write_ply(raw, tmp_path / "a.ply")
    values = np.frombuffer((tmp_path / "a.ply").read_bytes()[-26 * 4 :], "<f4")
    assert values[9:18].tolist() == [11, 12, 13, 21, 22, 23, 31, 32, 33]


@settings(max_examples=20)
@given(n=st.integers(1, 30), degree=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_round_trip(tmp_path_factory, n, degree, seed):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    raw = _raw(n, degree, seed)
    write_ply(raw, path)
    _assert_same(raw, read_ply(path))


def test_extreme_values_survive(tmp_path):
    raw = _raw(3, 0)
    raw.means[0] = torch.tensor([3.4e38, -1e-45, -0.0])
    write_ply(raw, tmp_path / "a.ply")
    _assert_same(raw, read_ply(tmp_path / "a.ply"))


def _foreign(path, names, table, form="binary_little_endian", kind="float", before=""):
    lines = ["ply", f"format {form} 1.0", "comment made by a test", before, f"element vertex {len(table)}"]
    lines += [f"property {kind} {name}" for name in names]
    lines += ["element face 0", "property list uchar int vertex_indices", "end_header", ""]
    code = {"float": "f4", "double": "f8"}[kind]
    body = {
        "binary_little_endian": lambda: table.astype("<" + code).tobytes(),
        "binary_big_endian": lambda: table.astype(">" + code).tobytes(),
        "ascii": lambda: "\n".join(" ".join(map(repr, row)) for row in table.tolist()).encode() + b"\n",
    }[form]()
    path.write_bytes("\n".join(line for line in lines[:-1] if line).encode() + b"\n" + body)


def _table(raw: RawGaussians, names) -> np.ndarray:
    n = len(raw)
    columns = dict(zip("xyz", raw.means.T, strict=True)) | {"opacity": raw.opacity_logits[:, 0], "extra": torch.ones(n)}
    for name, value in (("f_dc", raw.sh_dc[:, 0]), ("scale", raw.log_scales), ("rot", raw.quats)):
        columns |= {f"{name}_{i}": value[:, i] for i in range(value.shape[1])}
    rest = raw.sh_rest.transpose(1, 2).flatten(1)
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    return torch.stack([columns[name] for name in names], 1).double().numpy()


@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_gsplats_order_without_normals(tmp_path, form, kind):
    raw = _raw(5, 2)
    names = [name for name in property_names(8) if not name.startswith("n")]
    _foreign(tmp_path / "a.ply", names, _table(raw, names), form, kind)
    _assert_same(raw, read_ply(tmp_path / "a.ply"))


def test_any_order_and_unknown_properties(tmp_path):
    raw = _raw(4, 1)
    names = [*sorted((name for name in property_names(3) if not name.startswith("n")), reverse=True), "extra"]
    _foreign(tmp_path / "a.ply", names, _table(raw, names))
    _assert_same(raw, read_ply(tmp_path / "a.ply"))


def test_gradients_and_devices_do_not_matter(tmp_path):
    raw = RawGaussians(*(value.requires_grad_() for value in _raw(3, 0).as_dict().values()))
    write_ply(raw, tmp_path / "new" / "folder" / "a.ply")
    assert not read_ply(tmp_path / "new" / "folder" / "a.ply").means.requires_grad


def test_broken_files_are_explained(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(_raw(10, 1), path)
    good = path.read_bytes()

    def fails(data: bytes, message: str):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as info:
            read_ply(path)
        assert "a.ply" in str(info.value)

    fails(b"", "is not a ply")
    fails(b"\x89PNG\r\n" + good, "is not a ply")
    fails(good[:100], "header has no end")
    fails(good[:-1], "truncated")
    fails(good.replace(b"format binary_little_endian 1.0\n", b""), "no format")
    fails(good.replace(b"property float", b"property quad", 1), "not understood: 'property quad x'")
    fails(good.replace(b"f_rest_8", b"something"), "8 f_rest properties")
    fails(good.replace(b"scale_1", b"sizes_1").replace(b"opacity", b"opaque_"), "missing opacity, scale_1")
    fails(good.replace(b"element vertex", b"element point"), "no vertices")
    fails(good.replace(b"element vertex 10", b"element vertex 0"), "no Gaussians")
    with pytest.raises(FileNotFoundError):
        read_ply(tmp_path / "nothing.ply")


def test_mesh_is_not_taken_for_gaussians(tmp_path):
    _foreign(tmp_path / "a.ply", ["x", "y", "z"], np.zeros((3, 3)))
    with pytest.raises(ValueError, match="not a ply of Gaussians: missing f_dc_0"):
        read_ply(tmp_path / "a.ply")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    raw = _raw(10, 1)
    raw.opacity_logits[4] = raw.opacity_logits[7] = value
    write_ply(raw, tmp_path / "a.ply")
    with pytest.raises(ValueError, match="opacity_logits of 2 of 10 Gaussians is not finite, first in row 4"):
        read_ply(tmp_path / "a.ply")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.ply"
    write_ply(_raw(2, 0), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_ply(_raw(5, 0), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_no_gaussians_are_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"no Gaussian is left.*densify\.min_opacity"):
        write_ply(_raw(0, 1), tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []
