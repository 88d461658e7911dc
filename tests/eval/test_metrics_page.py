from pathlib import Path

from dg.eval.printed import catalog_table, printed

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_has_the_catalog_as_it_is():
    """`python -m dg.eval.printed` prints what belongs between the marks."""
    table = PAGE.read_text().split("-->\n")[1].split("\n<!-- table: end")[0]
    assert table == catalog_table()


def test_printed_groups_parts_and_names_blanks_once():
    values = {"psnr_db": 20.5, "psnr_db/back": 3.25, "faces": 12.0, "ssim": None, "lpips_vgg": None}
    lines = printed(values, {"ssim": "no reason", "lpips_vgg": "no reason"}).splitlines()
    assert [line.split() for line in lines] == [
        ["all", "back"],
        ["^", "psnr", "(dB)", "20.50", "3.25"],
        [],
        ["faces", "12"],
        [],
        ["blank:", "ssim,", "lpips_vgg:", "no", "reason"],
    ]
