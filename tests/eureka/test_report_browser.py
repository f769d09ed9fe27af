"""The report in a real browser, at two widths, light and dark, with and without its script."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from eureka.report import write_report
from tests.eureka.chromium import Browser, find_chromium
from tests.eureka.report_fixture import PLAN, write_search

SECTIONS = ("summary", "progress", "best", "candidates", "failures", "finals", "spending", "settings")

CONTRAST = """(() => {
  const channel = c => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
  const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const c = numbers(getComputedStyle(node).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
  };
  const bad = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.getClientRects().length || node.closest("svg, .skip, script")) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.add(node.className + ": " + walk.currentNode.data.trim().slice(0, 40));
  }
  return [...bad];
})()"""

VIDEO_WIDTH = """new Promise(done => {
  const video = document.querySelector("video");
  const look = () => video.error ? done(video.error.message)
    : video.readyState >= 2 ? done(video.videoWidth) : setTimeout(look, 50);
  look();
})"""

CLICK_ON_BEST = """document.querySelector(".fitness-chart a[data-candidate=g02_c03]")
  .dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}))"""


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_search(tmp_path_factory.mktemp("runs") / "ant-run" / "20260101-120000")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    if find_chromium() is None:
        pytest.skip("no Chromium is installed; the page was not opened in a browser")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser(search: Path, browser: Browser, width: int, dark: bool) -> None:
    """No complaint, no request, nothing wider than the window (closed and unfolded), every part visible and legible."""
    browser.complaints.clear()
    browser.open(search / "report.html", width, dark=dark)
    wide = "document.documentElement.scrollWidth"
    assert browser.evaluate(wide) == width
    for section in SECTIONS:
        assert browser.evaluate(f"document.getElementById('{section}').getBoundingClientRect().height") > 20, section
    chart = "[...document.querySelectorAll('.fitness-chart')].map(c => c.getBoundingClientRect().width).filter(w => w)"
    assert len(browser.evaluate(chart)) == 1
    browser.evaluate("document.querySelectorAll('.toggle').forEach(t => t.click())")
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.evaluate(wide) == width
    assert browser.evaluate("Math.max(...[...document.querySelectorAll('.sheet')].map(s => s.offsetWidth))") <= width
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate(VIDEO_WIDTH) == 320
    assert browser.evaluate("document.title").startswith("ant-run")  # the hostile text would have changed it
    assert browser.complaints == []


def test_sorting_filtering_and_unfolding(search: Path, browser: Browser) -> None:
    browser.complaints.clear()
    browser.open(search / "report.html", 1280)
    order = "[...document.querySelectorAll('#candidate-table tbody')].filter(b => !b.hidden).map(b => b.id)"
    press = "document.querySelectorAll('#candidate-table thead button')[2].click()"  # fitness
    browser.evaluate(press)
    names = browser.evaluate(order)
    scored = sorted(
        (n for n, p in PLAN.items() if p[3] is not None and math.isfinite(p[3])), key=lambda n: -(PLAN[n][3] or 0)
    )
    assert names[: len(scored)] == scored
    browser.evaluate(press)
    assert browser.evaluate(order)[: len(scored)] == scored[::-1]
    browser.evaluate("document.querySelector('.filters [data-status=failed]').click()")
    assert sorted(browser.evaluate(order)) == ["g02_c01", "g03_c03"]
    browser.evaluate(CLICK_ON_BEST)
    assert browser.evaluate("document.querySelector('#g02_c03-more .sheet').offsetHeight") > 500
    browser.evaluate("document.querySelector('#g02_c03 .toggle').click()")
    assert browser.evaluate("document.querySelector('#g02_c03 .more').offsetHeight") == 0
    assert browser.complaints == []


def test_readable_without_script(search: Path, browser: Browser) -> None:
    browser.open(search / "report.html", 390, script=False)
    assert browser.evaluate("document.documentElement.className") == ""
    assert browser.evaluate("document.querySelector('#g02_c03-more > summary').offsetHeight") > 0
    browser.evaluate("document.querySelector('#g02_c03-more').open = true")
    assert browser.evaluate("document.querySelector('#g02_c03-more .sheet').offsetHeight") > 500
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
