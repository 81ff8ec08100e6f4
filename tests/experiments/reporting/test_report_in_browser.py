"""The report in headless Chromium: drawn whole, without errors and without a network; its slider moves the gates."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from experiments.reporting.page import write_report
from normshift.registry import NORMS
from tests.experiments.reporting.many_norms import OWN, large_run
from tests.experiments.three_norms import MIOU, finished_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser here: install Debian's chromium and chromium-driver"
)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP, PHONE = 1280, 390

UNDRAWN = """
const empty = (e) => !e.getBoundingClientRect().width || !e.getBoundingClientRect().height;
const images = [...document.images].filter((i) => !i.complete || !i.naturalWidth || empty(i));
const drawings = [...document.querySelectorAll("svg")].filter((s) => empty(s) || !s.querySelector("rect, path"));
return [...images, ...drawings].map((e) => e.alt || e.ariaLabel || e.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = finished_run(tmp_path_factory.mktemp("runs") / "night-drive")
    write_report(run)
    return run


def opened(browser, run: Path, width: int):
    """The page, at the width of a desktop's window or of a phone; what went before is not in the logs."""
    browser.get_log("browser"), browser.get_log("performance")
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get((run / "report.html").as_uri())
    return browser


@pytest.fixture(params=[DESKTOP, PHONE])
def page(browser, run, request):
    return opened(browser, run, request.param)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A study of twelve norms and ten seeds."""
    run = large_run(tmp_path_factory.mktemp("runs") / "large")
    write_report(run)
    return run


@pytest.fixture(params=[DESKTOP, PHONE])
def large_page(browser, large, request):
    return opened(browser, large, request.param)


def test_every_figure_is_drawn_and_nothing_is_asked_of_a_network(page):
    assert page.execute_script(UNDRAWN) == []
    assert len(page.find_elements(By.TAG_NAME, "svg")) == 3  # mean and variance of sn, rho of bin
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


def test_the_page_is_no_wider_than_its_window(page):
    width = page.execute_script("return window.innerWidth")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width in (DESKTOP, PHONE)
    small = "return [...document.querySelectorAll('main p, main td, main li')].filter(e => e.innerText.trim())"
    assert page.execute_script(f"{small}.every(e => parseFloat(getComputedStyle(e).fontSize) >= 11)")


def test_flags_and_domains_are_not_broken_at_their_hyphens(page, run):
    broken = "e.getBoundingClientRect().height > 1.5 * parseFloat(getComputedStyle(e).lineHeight)"
    words = f"return [...document.querySelectorAll('.word')].filter(e => {broken}).map(e => e.innerText)"
    assert page.execute_script(words) == []
    copied = "getSelection().selectAllChildren(document.querySelector('pre')); return getSelection().toString()"
    assert page.execute_script(copied) == yaml.safe_load((run / "config.yaml").read_text())["command"]


def test_the_slider_shows_the_gates_of_each_epoch(page, run):
    gates = pd.read_parquet(run / "gates.parquet")
    arm = page.find_element(By.CSS_SELECTOR, '.gates[data-arm="sn"]')
    slider = arm.find_element(By.CSS_SELECTOR, "input[type=range]")
    assert slider.accessible_name and slider.is_displayed()
    for keys, epoch in ((None, 2), (Keys.HOME, 0), (Keys.ARROW_RIGHT, 1), (Keys.END, 2)):
        if keys:
            slider.send_keys(keys)
        assert arm.find_element(By.CSS_SELECTOR, ".slider output").text == str(epoch)
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch} of 2"
        now = gates[(gates["arm"] == "sn") & (gates["epoch"] == epoch)]
        panels = arm.find_elements(By.CLASS_NAME, "panel")
        for statistic, panel in zip(("mean", "var"), panels, strict=True):
            rows = now[now["statistic"] == statistic]
            assert drawn_bars(page, panel) == pytest.approx(expected_bars(rows), abs=2e-3)
            told = [int(share.text) for share in panel.find_elements(By.TAG_NAME, "output")]
            assert told == pytest.approx([100 * rows[rows["label"] == s]["value"].mean() for s in LABELS], abs=0.6)


LABELS = ("in", "ln", "bn")


def expected_bars(rows: pd.DataFrame) -> list[float]:
    """Layer by layer, from below: the height of IN's part, of LN's, of BN's, as shares of the whole."""
    return [rows[(rows["depth"] == d) & (rows["label"] == s)]["value"].mean() for d in range(6) for s in LABELS]


def drawn_bars(page, panel) -> list[float]:
    """What is seen of them, in pixels of the screen."""
    script = """
    const svg = arguments[0].querySelector("svg").getBoundingClientRect();
    return [...arguments[0].querySelectorAll("rect")].map((rect) => {
      const box = rect.getBoundingClientRect();
      return [box.height / svg.height, (svg.bottom - box.bottom) / svg.height];
    });"""
    parts = page.execute_script(script, panel)
    for i, (_, floor) in enumerate(parts):  # each stands on those below it
        assert floor == pytest.approx(sum(height for height, _ in parts[i - i % 3 : i]), abs=2e-3)
    return [height for height, _ in parts]


def test_the_slider_moves_the_ridges(page, run):
    gates = pd.read_parquet(run / "gates.parquet")
    arm = page.find_element(By.CSS_SELECTOR, '.gates[data-arm="bin"]')
    paths, slider = arm.find_elements(By.CSS_SELECTOR, "svg path"), arm.find_element(By.TAG_NAME, "input")
    shapes = {}
    for keys, epoch in ((Keys.HOME, 0), (Keys.END, 2)):
        slider.send_keys(keys)
        shapes[epoch] = [path.get_attribute("d") for path in paths]
        rho = gates[(gates["arm"] == "bin") & (gates["epoch"] == epoch)]["value"]
        told = [int(share.text) for share in arm.find_elements(By.CSS_SELECTOR, ".panel output")]
        assert told == pytest.approx([100 * (rho < 0.1).mean(), 100 * (rho > 0.9).mean()], abs=0.6)
        for depth, path in enumerate(shapes[epoch]):
            here = gates[(gates["arm"] == "bin") & (gates["epoch"] == epoch) & (gates["depth"] == depth)]["value"]
            points = [tuple(map(float, point.split())) for point in path[1:-1].split("L")]
            foot, (places, tops) = points[0][1], zip(*points[1:-1], strict=True)
            shares = [(foot - top) ** 2 for top in tops]  # a ridge is as high as the root of the share
            middle = sum(x * share for x, share in zip(places, shares, strict=True)) / sum(shares) / 40
            assert middle == pytest.approx(here.mean(), abs=0.02)
    assert len(paths) == 6 and all(a != b for a, b in zip(shapes[0], shapes[2], strict=True))


def test_without_the_script_the_last_epoch_stands(page, run):
    """What the page itself draws is what its script draws."""
    page.get((run / "report.html").as_uri())
    drawing = (
        "return [...document.querySelectorAll('svg rect, svg path')].map(e => e.getAttribute('d') || e.getAttribute"
    )
    before_script = run / "without.html"
    before_script.write_text((run / "report.html").read_text().split("<script>\n")[0])
    drawn = page.execute_script(f"{drawing}('height'))")
    told = [element.text for element in page.find_elements(By.CSS_SELECTOR, ".panel output")]
    page.get(before_script.as_uri())
    assert page.execute_script(f"{drawing}('height'))") == drawn
    assert [element.text for element in page.find_elements(By.CSS_SELECTOR, ".panel output")] == told
    assert not any(label.is_displayed() for label in page.find_elements(By.CLASS_NAME, "slider"))


def test_norms_have_one_colour_in_table_legend_and_gates(page):
    dots = page.execute_script(
        "return [...document.querySelectorAll('.result .dot')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(dots)) == len(MIOU)
    ridge = page.execute_script("return getComputedStyle(document.querySelector('.ridges path')).fill")
    assert ridge == dots[list(MIOU).index("bin")]
    batch = page.execute_script("return getComputedStyle(document.querySelector('.panel rect:nth-of-type(3)')).fill")
    assert batch == dots[list(MIOU).index("bn")]


def test_a_large_study_is_drawn_and_no_wider_than_its_window(large_page):
    for summary in large_page.find_elements(By.TAG_NAME, "summary"):
        summary.click()
    assert large_page.execute_script(UNDRAWN) == [] and large_page.get_log("browser") == []
    width = large_page.execute_script("return window.innerWidth")
    assert large_page.execute_script("return document.documentElement.scrollWidth") <= width in (DESKTOP, PHONE)


CUT_OFF = """
const cut = (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).visibility !== "hidden";
const hides = (e) => e.clientWidth && getComputedStyle(e).overflowX !== "visible";
const texts = [...document.querySelectorAll("main :is(p, li, span, h1, h2, h3, figcaption, summary)")];
return texts.filter((e) => hides(e) && cut(e)).map((e) => e.innerText);
"""
OUTSIDE = """
let count = 0;
const found = [], room = document.body.appendChild(document.createElement("div"));
const figures = [...document.images].filter((i) => i.src.startsWith("data:image/svg"));
for (const figure of figures) {
  room.innerHTML = atob(figure.src.split(",")[1]).replace(/^[^]*?<svg/, "<svg");
  const whole = room.firstChild.getBoundingClientRect();
  for (const text of room.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    count += box.width > 0;
    const out = box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1;
    if (out || box.bottom > whole.bottom + 1) found.push(`${figure.alt}: ${text.textContent}`);
  }
}
room.remove();
return [figures.length, count, found];
"""


def test_no_text_is_cut_off(large_page):
    assert large_page.execute_script(CUT_OFF) == []
    figures, texts, outside = large_page.execute_script(OUTSIDE)
    assert figures > 12 and texts > 10 * (figures - 12) and outside == []  # the legend's twelve have no text


def at_its_right(area) -> int:
    """The darkest pixel at a table's right end, between two of its rows' lines."""
    with Image.open(io.BytesIO(area.screenshot_as_png)) as image:
        return (
            image.convert("L").crop((image.width - 3, image.height - 12, image.width, image.height - 4)).getextrema()[0]
        )


def test_columns_that_are_outside_have_a_sign(browser, large):
    """A shadow and a sentence, until the table is scrolled to its end."""
    phone = opened(browser, large, PHONE)
    area = phone.find_element(By.CSS_SELECTOR, ".scroll:has(.result)")
    sign = phone.find_element(By.CSS_SELECTOR, ".more")
    columns = len(area.find_elements(By.CSS_SELECTOR, "thead th"))
    right = "return [...arguments[0].querySelectorAll('thead th')].map(h => h.getBoundingClientRect().right)"
    visible = sum(end <= PHONE - 15 for end in phone.execute_script(right, area))
    assert sign.text == f"{columns - visible} more columns to the right →" and 2 <= visible < columns
    assert at_its_right(area) < 225
    phone.execute_script("arguments[0].scrollLeft = 10000", area)
    WebDriverWait(phone, 5).until(lambda _: sign.text == "← the last column")
    assert at_its_right(area) > 250
    first = area.find_element(By.CSS_SELECTOR, "tbody th")
    assert first.rect["x"] >= 0 and first.text == "bin"  # the rows' names stay
    assert area.get_attribute("tabindex") == "0" and area.accessible_name == "table: Result"
    desktop = opened(browser, large, DESKTOP)
    assert not desktop.find_element(By.CSS_SELECTOR, ".more").is_displayed()


def test_norms_beyond_ours_have_colours_of_their_own(large_page):
    dots = large_page.execute_script(
        "return [...document.querySelectorAll('.result .dot')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(dots) == len(set(dots)) == len(NORMS) + len(OWN)
