"""Debian's Chromium for the page that a module's fixture `written` writes, and how legible it is as WCAG 2.2 measures contrast."""

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = Path(__file__).resolve().parent.parent / "chromium.sh"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    chromium = subprocess.run([CHROMIUM], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with sync_playwright() as it:
        browser = it.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, written):
    """Opens the page, which must not load anything from elsewhere."""
    contexts = []

    def open_it(**settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(written.as_uri())
        assert asked == [page.url]
        return page

    yield open_it
    for context in contexts:
        context.close()


# Returns the colours of each text and its background (WCAG 2.2, 1.4.3).
TEXTS = """() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const seen = [];
  for (const it of document.querySelectorAll('h1, h2, p, dt, dd, li, th, td, code, span, text')) {
    if (!it.textContent.trim() || getComputedStyle(it).clipPath !== 'none') continue;
    const style = getComputedStyle(it);
    let behind = it, back = [0, 0, 0, 0];
    while (behind && (back = rgb(getComputedStyle(behind).backgroundColor)).length === 4 && back[3] === 0) behind = behind.parentElement;
    seen.push([it.textContent.trim().slice(0, 30), rgb(it.tagName === 'text' ? style.fill : style.color), behind ? back : [255, 255, 255]]);
  }
  return seen;
}"""


def luminance(color) -> float:
    channels = [c / 255 for c in color[:3]]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other) -> float:
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def too_faint(page, at_least: int) -> list:
    """Returns the texts whose contrast is below 4.5; there have to be some texts."""
    texts = page.evaluate(TEXTS)
    assert len(texts) > at_least
    return [it for it in texts if contrast(it[1], it[2]) < 4.5]


def is_dark(page) -> bool:
    return luminance(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) < 0.5
