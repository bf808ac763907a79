"""A page in Chromium: what a click changes.

Needs `pip install -e ".[browser]"`, and Chromium with its driver (Debian: apt-get install chromium chromium-driver).
"""

import json
import shutil
from pathlib import Path

import pytest

from mtl_jax.reports import page, run_table
from tests.stored_runs import counted_once

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="chromium and chromedriver are not installed"),
]
NO_VALUE = "\N{EN DASH}"
HOSTILE = "seed 1 <img src=x onerror=alert(1)>"
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def report(trained, tmp_path) -> Path:
    """A page about two seeds of an experiment, the first of which has a gallery."""
    folders = [tmp_path / "runs" / name for name in ("seed 0", HOSTILE)]
    for seed, folder in enumerate(folders):
        shutil.copytree(trained, folder)
        config = json.loads((folder / "config.json").read_text())
        del config["sha256"]
        config["train"]["seed"] = seed
        (folder / "config.json").write_text(json.dumps(config))
        lines = [{"step": i, "kind": "train", "loss/total": 2 / i, "learning_rate": 0.1} for i in range(1, 9)]
        lines += [{"step": i, "kind": "eval", "depth/rmse": 1 / i, "depth/abs_rel": 1 / i} for i in (4, 8)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with counted_once():
        return page.write(run_table.find_runs([tmp_path / "runs"]), tmp_path / "report.html", page.Options(scored=0))


def set_width(browser, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_clicks(browser, report):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.wait import WebDriverWait

    def find(selector):
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(selector):
        return [each.text for each in find(selector)]

    set_width(browser, 1200)
    browser.get(report.as_uri())
    assert browser.title == "Report on 2 runs"
    assert texts("nav button") == ["seed 0", HOSTILE]
    assert not find("img[src=x]")

    # A run disappears everywhere, and comes back: its bars, its curves, its gallery.
    first = find("nav button")[0]
    bars, (gallery,) = len(find("#classes .fill")), find(".gallery")
    assert bars == 2 * 40
    first.click()
    assert first.get_attribute("aria-pressed") == "false"
    assert len(find("#classes .fill")) == bars / 2
    assert len(find(".u-series.u-off")) == len(find(".uplot")) == 2
    assert not gallery.is_displayed()
    find(".u-series.u-off th")[0].click()  # the legend of a chart toggles as well
    assert first.get_attribute("aria-pressed") == "true"
    assert len(find("#classes .fill")) == bars
    assert not find(".u-series.u-off")
    assert gallery.is_displayed()

    # Curves: values under the pointer, a logarithmic axis, charts that are drawn when they are asked for.
    shown = ".u-legend .u-value"
    assert set(texts(shown)) == {NO_VALUE}
    ActionChains(browser).move_to_element(find(".u-over")[0]).perform()
    WebDriverWait(browser, 20).until(lambda _: NO_VALUE not in texts(shown)[:3])
    before = browser.execute_script("return document.querySelector('.uplot canvas').toDataURL()")
    find("#logarithmic")[0].click()
    assert browser.execute_script("return document.querySelector('.uplot canvas').toDataURL()") != before
    find("summary")[0].click()
    WebDriverWait(browser, 20).until(lambda _: len(find(".uplot")) == 3)

    # The slider lays the truth over the prediction.
    truth, slider = find(".stack img + img")[0], find(".wipe input")[0]
    hidden = truth.value_of_css_property("clip-path")
    slider.send_keys(Keys.END)
    assert truth.value_of_css_property("clip-path") not in (hidden, "none")
    assert slider.get_attribute("value") == "100"

    # The gallery is sorted anew.
    def scores(row):
        return [float(text.split()[2]) for text in texts(f".card .task:nth-of-type({row}) .title")]

    task, order = find(".gallery select")
    semseg, depth = 1, 2  # rows of a card
    assert len(scores(semseg)) == 5
    assert scores(semseg) == sorted(scores(semseg))  # worst first: higher is better
    assert scores(semseg)[0] < scores(semseg)[-1]
    Select(order).select_by_value("best")
    assert scores(semseg) == sorted(scores(semseg), reverse=True)
    Select(task).select_by_value("depth")
    assert scores(depth) == sorted(scores(depth))  # best first: lower is better
    assert scores(depth)[0] < scores(depth)[-1]

    # Rows of the classes are sorted anew.
    assert texts("#classes .name")[0] == "wall"
    Select(find("#classes select")[0]).select_by_value("worst")
    values = [float(text) for text in texts("#classes .value")[::2]]
    assert values == sorted(values)

    set_width(browser, 400)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name).filter(name => !name.startsWith('data:'))"
        )
        == []
    )
    assert [line for line in browser.get_log("browser") if line["level"] != "INFO"] == []
