"""The page in headless Chromium, from disk: the table, the filters, and a mesh that is seen to turn.

Skipped where there is no Chromium; on Debian `apt-get install chromium` brings it.
"""

import io
import time

import numpy as np
import pytest
from PIL import Image

from dg.eval.board import write_board
from tests.eval import chromium
from tests.eval.board_records import BASELINE, HEADLINE, ITEMS, NASTY, records, write

pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    write(folder, records())
    write_board(folder, headline=HEADLINE, baseline=BASELINE)
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as found:
        found.open((folder / "leaderboard.html").as_uri())
        yield found


def methods(browser):
    return browser.evaluate(
        "Array.from(document.querySelectorAll('tbody.methods tr.entry')).filter(r => !r.hidden)"
        ".map(r => [r.dataset.method, r.dataset.stage])"
    )


def picture(browser, selector):
    return np.asarray(Image.open(io.BytesIO(browser.screenshot(selector))).convert("RGB")).astype(int)


def test_table_is_there(browser):
    assert methods(browser)[:2] == [["zero123_mini", "mesh"], ["zero123_mini", "coarse"]]
    assert [NASTY, "mesh"] in methods(browser)
    assert browser.evaluate("document.querySelectorAll('.card').length") == len(ITEMS)
    box = browser.evaluate("document.querySelector('table.sortable').getBoundingClientRect().toJSON()")
    assert box["width"] > 600 and box["height"] > 300


def test_a_click_on_a_header_sorts(browser):
    header = "document.querySelectorAll('table.sortable th.num button')[2]"  # #, failures, PSNR
    value = "parseFloat(r.children[3].dataset.v)"
    order = f"Array.from(document.querySelectorAll('tbody.methods tr.entry')).map(r => {value})"
    assert browser.evaluate(f"{header}.textContent").startswith("PSNR")
    browser.evaluate(f"{header}.click()")
    first = browser.evaluate(order)
    assert first == sorted(first, reverse=True)
    browser.evaluate(f"{header}.click()")
    assert browser.evaluate(order) == sorted(first)
    browser.evaluate(f"{header}.click()")


def test_blanks_are_sorted_last_both_ways(browser):
    header = "document.querySelectorAll('table.sortable th.num button')[4]"  # volume IoU
    column = "Array.from(document.querySelectorAll('tbody.methods tr.entry')).map(r => r.children[6].dataset.v)"
    for _ in range(2):
        browser.evaluate(f"{header}.click()")
        values = browser.evaluate(column)
        assert "" in values and values == [v for v in values if v] + [""] * values.count("")


def test_filters_hide_rows_and_pictures(browser):
    browser.evaluate(
        "(s => { s.value = 'coarse'; s.dispatchEvent(new Event('change')); })(document.querySelector('#stage'))"
    )
    assert {stage for _, stage in methods(browser)} == {"coarse"}
    shown = "Array.from(document.querySelectorAll('.tile')).filter(t => !t.hidden).map(t => t.dataset.stage)"
    assert set(browser.evaluate(shown)) == {"coarse", ""}  # input and truth stay
    browser.evaluate(
        "(s => { s.value = 'all'; s.dispatchEvent(new Event('change')); })(document.querySelector('#stage'))"
    )
    assert len(methods(browser)) == 7


def test_a_row_opens_with_its_command(browser):
    browser.evaluate("document.querySelector('tr.entry[data-method=silhouette] button.open').click()")
    text = browser.evaluate("document.querySelector('tr.entry[data-method=silhouette] + tr.more').innerText")
    assert "python evaluate.py protocol=synthetic_gt methods=[silhouette]" in text and "cd8220a" in text


def test_the_slider_moves_every_picture_of_an_object(browser):
    images = "Array.from(document.querySelectorAll('.card img[data-n=\"4\"]')).slice(0, 3)"
    at = images + ".map(i => i.style.getPropertyValue('--at'))"
    browser.evaluate(
        "(s => { s.value = 3; s.dispatchEvent(new Event('input')); })(document.querySelector('.card .view input'))"
    )
    assert browser.evaluate(at) == ["100%"] * 3


def test_dark_is_dark(browser):
    brightness = {}
    for scheme in ("light", "dark"):
        browser.colours(scheme)
        brightness[scheme] = picture(browser, "table.sortable").mean()
    browser.colours("light")
    assert brightness["light"] > 200 and brightness["dark"] < 70


def test_a_click_makes_the_mesh_turn(browser):
    browser.evaluate("document.querySelector('.card').scrollIntoView()")
    browser.evaluate("document.querySelector('.tile.final button.shot').click()")
    browser.wait_for("document.querySelector('model-viewer')?.loaded === true")
    viewer = ".tile.final model-viewer"
    end, moved = time.monotonic() + 30, 0.0
    first = picture(browser, viewer)
    while moved < 4 and time.monotonic() < end:  # frames are slow where the processor draws them
        time.sleep(0.3)
        moved = np.abs(picture(browser, viewer) - first).mean()
    assert moved >= 4
    colours = np.unique(picture(browser, viewer)[::8, ::8].reshape(-1, 3), axis=0)
    assert len(colours) > 20  # the textured ball, no blank canvas
    angle = "document.querySelector('model-viewer').turntableRotation"
    before = browser.evaluate(angle)
    browser.wait_for(f"{angle} > {before} + 0.1")
    assert browser.evaluate("document.querySelector('model-viewer').dataset.error") is None
    browser.evaluate("document.querySelector('.close').click()")
    assert browser.evaluate("document.querySelector('model-viewer')") is None


def test_nothing_was_asked_of_anybody(browser):
    """After all of the above: the file itself, and what it holds."""
    assert browser.requests
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "blob"}
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    refused = [text for text in browser.complaints if "rAF timed out" not in text]  # of a slow machine
    assert refused == []
