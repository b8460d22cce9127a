"""What a reader meets first: claims as pictures, figures; and a page that all can use and that fetches nothing."""

import json
import time
from importlib.resources import files

import pytest
from report_browser import VERDICTS, needs_browser, panels, select, until
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from deltaball.plan.plan import Plan
from deltaball.workflow import stages

pytestmark = needs_browser


def test_nothing_is_fetched_and_nothing_goes_wrong(page: webdriver.Chrome, study: Plan) -> None:
    for details in page.find_elements(By.CSS_SELECTOR, "details"):
        page.execute_script("arguments[0].open = true", details)
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "details.data table")) == len(stages.tables(study)))
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert asked
    assert [url for url in asked if not url.startswith(("file://", "data:", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file://")]) == 1
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_first_screen_is_title_claims_and_figure(page: webdriver.Chrome) -> None:
    height = page.execute_script("return innerHeight")
    for wanted in ("h1", ".first img", "#scorecard"):
        assert page.find_element(By.CSS_SELECTOR, wanted).location["y"] < height / 2
    claims = page.find_elements(By.CSS_SELECTOR, ".claims > li")
    assert [one.find_element(By.CSS_SELECTOR, ".chip").text for one in claims] == [
        VERDICTS[name] for name in sorted(VERDICTS, key=lambda name: name.startswith("pruning"))
    ]
    first = next(one for one in claims if "training_lowers_robustness" in one.text)
    first.find_element(By.TAG_NAME, "summary").click()
    assert "the rule of <b>signs</b>" in first.text
    assert "why training_lowers_robustness" in first.text


def test_each_claim_has_a_mark_per_part_told_apart_without_colour(page: webdriver.Chrome) -> None:
    for claim in page.find_elements(By.CSS_SELECTOR, ".claims > li"):
        verdict = claim.get_attribute("data-verdict")
        plots = claim.find_elements(By.CSS_SELECTOR, ".picture svg")
        assert len(plots) == (verdict != "not run")
        for plot in plots:
            assert "2 estimates" in plot.get_attribute("aria-label")
            assert len(plot.find_elements(By.CSS_SELECTOR, "g")) == 2
            assert len(plot.find_elements(By.CSS_SELECTOR, "g rect.estimate")) == 2 * (verdict == "contradicted")
            ring = plot.find_element(By.CSS_SELECTOR, ".estimate").value_of_css_property("fill") == "rgb(255, 255, 255)"
            assert ring == (verdict == "undecided")


def test_the_summary_bar_shows_the_claims_of_a_verdict_and_all_again(page: webdriver.Chrome) -> None:
    button = page.find_element(By.CSS_SELECTOR, ".verdicts [data-verdict=contradicted]")
    for shown in (["contradicted"], list(VERDICTS.values())):
        button.click()
        there = [one for one in page.find_elements(By.CSS_SELECTOR, ".claims > li") if one.is_displayed()]
        assert sorted(one.get_attribute("data-verdict") for one in there) == sorted(shown)


def test_a_figure_fills_the_window_when_pressed_and_goes_by_escape(page: webdriver.Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "figure button").send_keys(Keys.ENTER)
    dialog = page.find_element(By.TAG_NAME, "dialog")
    assert dialog.is_displayed()
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    until(page, lambda: not dialog.is_displayed())


@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_that_keeps_people_out(study: Plan, page: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        # On a phone what is closed; what is open is the same wherever it stands.
        opened = "details:not(.data), #table-completeness" if width > 500 else "#table-completeness"
        for details in page.find_elements(By.CSS_SELECTOR, opened):
            page.execute_script("arguments[0].open = true", details)
        until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#table-completeness table"))
        select(page, 0)
        page.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        page.set_script_timeout(120)
        found = page.execute_async_script(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}).then(arguments[0])"
        )
        assert found["passes"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_phone_needs_no_sideways_scroll(study: Plan, browser: webdriver.Chrome) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get((study.study.folder / "report.html").as_uri())
        until(browser, lambda: browser.execute_script("return document.body.dataset.drawn"))
        for details in browser.find_elements(By.CSS_SELECTOR, "details"):
            browser.execute_script("arguments[0].open = true", details)
        time.sleep(0.3)
        assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        boxes = [one.rect for one in panels(browser)]
        assert all(0 <= box["x"] and box["x"] + box["width"] <= 390 for box in boxes)
        assert boxes[0]["y"] < boxes[1]["y"]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
