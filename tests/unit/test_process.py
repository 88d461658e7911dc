import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dg.data import process
from dg.data.contact_sheet import contact_sheet
from dg.data.process import main, pictures_in, targets

ROOT = Path(__file__).resolve().parents[2]


def save(path, box=(10, 50, 20, 40), colour=(200, 80, 40)):
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[box[0] : box[1], box[2] : box[3]] = (*colour, 255)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(rgba).save(path)
    return path


def pixels(path):
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


def test_a_picture_is_centred_and_saved_beside_the_input(tmp_path, capsys):
    source = save(tmp_path / "cat.v2.png")
    assert main([str(source)]) == 0
    out = pixels(tmp_path / "cat.v2_rgba.png")
    rows, columns = np.flatnonzero(out[..., 3].max(1)), np.flatnonzero(out[..., 3].max(0))
    assert (len(rows), len(columns), rows[0], columns[0]) == (204, 102, 26, 77)  # 40 x 20: 204 rows, centred
    np.testing.assert_array_equal(out[128, 128], (200, 80, 40, 255))
    assert (out[out[..., 3] == 0] == 0).all()
    assert "1 written" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.v2.png", "cat.v2_rgba.png"]


def test_size_border_framing_and_folder(tmp_path):
    source = save(tmp_path / "cat.png")
    assert main([str(source), "--size", "100", "--border", "0.5", "--out", str(tmp_path / "new" / "out")]) == 0
    out = pixels(tmp_path / "new" / "out" / "cat_rgba.png")
    assert out.shape == (100, 100, 4) and np.count_nonzero(out[..., 3].max(1)) == 50
    assert main([str(source), "--size", "64", "--no-recenter"]) == 0
    np.testing.assert_array_equal(pixels(tmp_path / "cat_rgba.png"), pixels(source))


def test_a_folder_goes_on_after_a_bad_file(tmp_path, capsys):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", (0, 64, 30, 34))
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    Image.fromarray(np.zeros((9, 9, 4), np.uint8)).save(tmp_path / "clear.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    save(tmp_path / "theirs_rgba.png")
    assert main([str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "2 written, 2 failed" in captured.out
    errors = captured.err.replace("\n", "")
    assert "bad.jpg: damaged" in errors and "clear.png: is fully transparent" in errors
    assert {p.name for p in tmp_path.glob("*_rgba.png")} == {"a_rgba.png", "b_rgba.png", "theirs_rgba.png"}
    assert not list(tmp_path.glob(".*"))  # no temporary files
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 500 and sheet.height > 400


def test_results_and_sheets_are_no_inputs(tmp_path):
    source = save(tmp_path / "a.png")
    assert main([str(tmp_path)]) == 0
    assert pictures_in(tmp_path) == [source]
    (tmp_path / "a.png").unlink()
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2


def test_what_is_up_to_date_is_left_alone(tmp_path, capsys):
    source = save(tmp_path / "a.png")
    result = tmp_path / "a_rgba.png"
    run = lambda *more: (main([str(source), *more]), result.stat().st_mtime_ns)  # noqa: E731
    first = run()[1]
    assert run() == (0, first)
    assert "1 up to date" in capsys.readouterr().out
    assert run("--force")[1] > first
    assert run("--size", "64")[1] > first and pixels(result).shape[0] == 64  # other settings: made anew
    os.utime(source, (result.stat().st_mtime + 10,) * 2)
    before = result.stat().st_mtime_ns
    assert run("--size", "64")[1] > before  # a newer input


def test_a_file_of_the_users_is_not_overwritten(tmp_path, capsys):
    source, theirs = save(tmp_path / "a.png"), save(tmp_path / "a_rgba.png", colour=(1, 2, 3))
    assert main([str(source)]) == 1
    assert "was not made by this program" in capsys.readouterr().err.replace("\n", "")
    assert pixels(theirs)[30, 30].tolist() == [1, 2, 3, 255]
    assert main([str(source), "--force"]) == 0
    assert pixels(theirs).shape[0] == 256
    sheet = save(tmp_path / "contact_sheet.png")
    before = sheet.read_bytes()
    assert main([str(tmp_path)]) == 0
    assert sheet.read_bytes() == before


def test_inputs_of_one_stem_get_distinct_names(tmp_path):
    names = ["cat.png", "cat.webp", "Cat.jpeg", "dog.png"]
    result = targets([Path(n) for n in names], None)
    assert [result[Path(n)].name for n in names] == [
        "cat_png_rgba.png",
        "cat_webp_rgba.png",
        "Cat_jpeg_rgba.png",
        "dog_rgba.png",
    ]
    with pytest.raises(ValueError, match=r"would both become"):
        targets([Path("cat.png"), Path("cat.webp"), Path("cat_png.bmp")], None)


def test_nothing_is_left_of_a_failed_write(tmp_path, monkeypatch):
    source = save(tmp_path / "a.png")

    def fail(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(process.Image.Image, "save", fail)
    assert main([str(source)]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["missing.png"], "no such file or folder"),
        (["a.png", "--size", "0"], "size=0"),
        (["a.png", "--border", "1"], "border=1"),
        (["a.png", "--border", "x"], "invalid float"),
        (["a.png", "--out", "a.png"], "is a file"),
        (["a.png", "--sise", "3"], "unrecognized arguments"),
        (["a_rgba.png"], "is a result already"),
        (["empty"], "no pictures"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    save(Path("a.png"))
    save(Path("a_rgba.png"))
    Path("empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_contact_sheet_shows_input_and_result(tmp_path):
    source = save(tmp_path / "a.png", (0, 64, 0, 64), (255, 0, 0))
    result = save(tmp_path / "a_rgba.png", (0, 64, 0, 64), (0, 0, 255))
    clear = save(tmp_path / "b_rgba.png", (0, 0, 0, 0))
    sheet = np.asarray(contact_sheet([(source, result), (source, clear)]))
    middle = [(100, 104), (100, 304), (100, 504), (320, 304), (320, 504)]
    assert [tuple(sheet[p]) for p in middle[:3]] == [(255, 0, 0), (0, 0, 255), (0, 0, 255)]
    assert tuple(sheet[middle[3]]) == (255, 255, 255)
    assert len(np.unique(sheet[300:340, 480:530].reshape(-1, 3), axis=0)) == 2  # the checkerboard


def test_as_a_program(tmp_path):
    source = save(tmp_path / "a.png")
    command = [sys.executable, "-m", "dg.data.process", str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "a_rgba.png").exists(), done.stderr
