"""The report in a browser: the explorer, tables that sort, a phone's width, and nothing fetched from anywhere."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import grid
from drawn_figures import page_without_pictures
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait
from synthetic_tables import both_sides, write_tables

from deltaball.analysis import writing
from deltaball.plan.plan import Plan
from deltaball.tables import columns, frames
from deltaball.workflow import stages

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver are here")
PATIENCE = 120  # seconds, of a busy machine
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
    "--window-size=1280,900",
]
# Finds elements inside the shadow roots in which BokehJS draws.
DEEP = """
const deep = (root, wanted) => [...root.querySelectorAll("*")].flatMap((one) =>
  [...(one.matches(wanted) ? [one] : []), ...(one.shadowRoot ? deep(one.shadowRoot, wanted) : [])]);
"""
TITLES = "return [...Bokeh.index.roots].flatMap((one) => (one.model.title ? [one.model.title.text] : []))"
VERDICTS = {
    "harder_is_noisier": "not run",
    "training_lowers_robustness": "supported",
    "pruning_has_no_effect": "contradicted",
    "capacity_lowers_robustness": "undecided",
}
KNOWN = ("claim", "section", "says", "part", "verdict", "why", "rule")  # of a claim that was not run


def scorecard() -> pd.DataFrame:
    """A claim of each verdict, each with two parts."""
    rows = []
    for claim, verdict in VERDICTS.items():
        section = "4.3" if claim.startswith("pruning") else "4.2"
        for part in ("overall", "mnist5k, class_change δ 0.1", "mnist5k, class_change δ 0.06"):
            row = {"claim": claim, "section": section, "says": f"Of {claim}.", "part": part, "effect": -0.4}
            row |= {"dataset": "mnist5k", "measure": None, "statistic": "slope", "lower": -0.6, "upper": -0.2}
            row |= {"p": 0.01, "confidence": 0.95, "unit": "per doubling", "p_holm": 0.02, "p_bh": 0.02}
            row |= {"networks": 12, "trajectories": 6, "verdict": verdict, "why": f"why {claim}"}
            row |= {"rule": "the rule of <b>signs</b>"}
            rows.append(row if verdict != "not run" else {**dict.fromkeys(row), **{key: row[key] for key in KNOWN}})
    return pd.DataFrame(rows)


def examples(plan: Plan) -> pd.DataFrame:
    """Of two networks, images of two points and their twins in two balls: each image one shade of grey."""
    rows = []
    for place, network in enumerate(plan.networks[:2]):
        for point in (0, 1):
            for delta, became in ((0.03, 3), (0.1, 8)):
                row = {"network_id": network.id, "dataset": network.dataset, "point": point, "label": 3, "norm": "linf"}
                row |= {"measure": "some", "attack": "pgd", "delta": delta, "predicted": 3, "became": became}
                row |= {"height": 4, "width": 3, "channels": 1}
                rows.append({**row, "image": bytes([40 * place + point] * 12), "perturbed": bytes([200 + became] * 12)})
    return pd.DataFrame(rows, columns=list(columns.EXAMPLES)).astype(columns.EXAMPLES)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished study of SGD, pruned and convolutional networks, reported, with a scorecard."""
    folder = tmp_path_factory.mktemp("page")
    grids = [
        grid(name="one", width=[64, 128], depth=[1, 2], learning_rate=[0.1, 0.01]),
        grid("cnn", name="two", filters=[4, 8], learning_rate=[0.1, 0.01]),
        grid("fcn", "imp", name="four", proportion=[0.5, 0.9], width=[64, 128], epochs=5),
    ]
    plan = both_sides(folder, grids=grids, convergence=[])
    write_tables(plan)
    writing.write_tables(plan)
    frames.write_csv(scorecard(), plan.study.folder / "tables/scorecard.csv")
    frames.write(examples(plan), plan.study.folder / "examples.parquet")
    (folder / "config.yaml").write_text("study: test\n")
    page_without_pictures(plan, folder / "config.yaml")
    return plan


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get("about:blank")
    yield driver
    driver.quit()


@pytest.fixture
def page(study: Plan, browser: webdriver.Chrome) -> webdriver.Chrome:
    """The page, freshly opened and its explorer drawn."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get((study.study.folder / "report.html").as_uri())
    until(browser, lambda: browser.execute_script("return document.body.dataset.drawn"))
    return browser


def until(browser: webdriver.Chrome, found: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, PATIENCE, 0.05).until(lambda _: found())


def panels(page: webdriver.Chrome) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, "#panels > div")


def source(page: webdriver.Chrome, column: str) -> list[Any]:
    return page.execute_script("return Array.from(explorer.source.data[arguments[0]])", column)


def chosen(page: webdriver.Chrome) -> list[int]:
    return page.execute_script("return explorer.source.selected.indices")


def choose(page: webdriver.Chrome, control: str, value: str) -> None:
    """Choose a value of a control, and wait until the panels are drawn anew."""
    before = panels(page)[0]
    Select(page.find_element(By.ID, f"explorer-{control}")).select_by_value(value)
    until(page, lambda: panels(page) and panels(page)[0] != before)


def ids(page: webdriver.Chrome) -> list[str]:
    return page.execute_script("return Array.from(explorer.source.data.index, (one) => explorer.id(one))")


def place(page: webdriver.Chrome, panel: int, x: float, y: float) -> tuple[int, int]:
    """Where in the window a point of a panel's axes is drawn; the panel is scrolled into view."""
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", panels(page)[panel])
    found = page.execute_script(
        "const view = [...Bokeh.index.roots].find((one) => one.el.closest('#panels > div') === arguments[0]);"
        "const [whole, frame] = [view.el.getBoundingClientRect(), view.frame];"
        "return [whole.x + frame.x_scale.compute(arguments[1]), whole.y + frame.y_scale.compute(arguments[2])]",
        panels(page)[panel],
        x,
        y,
    )
    return round(found[0]), round(found[1])


def move(page: webdriver.Chrome, *places: tuple[int, int], drag: bool = False) -> None:
    """Move the pointer from place to place; with `drag`, its button is down on the way."""
    actions = ActionChains(page, duration=50)
    for number, (x, y) in enumerate(places):
        actions.w3c_actions.pointer_action.move_to_location(x, y)
        if drag and number == 0:
            actions.w3c_actions.pointer_action.pointer_down()
    if drag:
        actions.w3c_actions.pointer_action.pointer_up()
    actions.perform()


def test_nothing_is_fetched_and_nothing_goes_wrong(page: webdriver.Chrome) -> None:
    for details in page.find_elements(By.CSS_SELECTOR, "details"):
        page.execute_script("arguments[0].open = true", details)
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "details.data table")) == len(stages.TABLES))
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
        for details in page.find_elements(By.CSS_SELECTOR, "details:not(.data), #table-regressions"):
            page.execute_script("arguments[0].open = true", details)
        until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#table-regressions table"))
        select(page, 0)
        page.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = page.execute_async_script(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}).then(arguments[0])"
        )
        assert found["passes"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_measured_network_is_a_dot_with_its_own_numbers(study: Plan, page: webdriver.Chrome) -> None:
    networks, robustness = frames.load(study)
    assert sorted(ids(page)) == sorted(networks["network_id"])
    one = next(one for one in study.measures if one.notion == "softmax_variation" and one.delta == 0.1)
    choose(page, "left", one.name)
    shown = dict(zip(ids(page), source(page, "left"), strict=True))
    wanted = robustness[robustness["measure"] == one.name].set_index("network_id")["estimate"]
    assert shown == pytest.approx(wanted.to_dict(), abs=1e-6)


def test_hovering_a_dot_tells_its_hyperparameters_and_intervals(study: Plan, page: webdriver.Chrome) -> None:
    networks, robustness = frames.load(study)
    x, y = source(page, "x"), source(page, "left")
    lonely = max(range(len(x)), key=lambda one: min(abs(x[one] - x[two]) for two in range(len(x)) if two != one))
    there = place(page, 0, x[lonely], y[lonely])
    move(page, (there[0] + 90, there[1] + 40), (there[0] + 1, there[1] + 1), there)
    said = until(page, lambda: page.execute_script(DEEP + "return deep(document, '.dot')[0]?.textContent"))
    network = networks.set_index("network_id").loc[ids(page)[lonely]]
    assert network.name in said
    assert f"{100 * network['test_accuracy']:.2f} %" in said
    for axis in ("width", "learning_rate") if network["architecture"] == "fcn" else ("filters", "learning_rate"):
        assert f"{axis.replace('_', ' ')} {network[axis]}" in said
    rows = robustness[robustness["network_id"] == network.name]
    assert len(rows) > 3
    for row in rows.itertuples():
        assert f"{row.estimate:.3f} [{row.lower:.3f}, {row.upper:.3f}]" in said


def test_colour_axes_and_panels_are_switched(study: Plan, page: webdriver.Chrome) -> None:
    networks = frames.load(study)[0].set_index("network_id")
    assert len(panels(page)) == 2
    choose(page, "colour", "learning_rate")
    colours = pd.Series(source(page, "colour"), ids(page))
    by_rate = colours.groupby(networks["learning_rate"]).unique()
    assert [len(one) for one in by_rate] == [1, 1]
    assert by_rate.iloc[0][0] != by_rate.iloc[1][0]
    choose(page, "x", "parameters")
    assert source(page, "x") == networks["parameters"].loc[ids(page)].tolist()
    choose(page, "facet", "architecture")
    assert len(panels(page)) == 4
    titles = page.execute_script(TITLES)
    counts = networks["architecture"].value_counts()
    assert {f"architecture {name}: {count} networks" for name, count in counts.items()} <= set(titles)
    choose(page, "show", "method:0")
    titles = page.execute_script(TITLES)
    assert set(titles) == {f"architecture fcn: {(networks['method'] == 'imp').sum()} networks"}


def test_a_selection_in_one_panel_is_lit_in_the_other(page: webdriver.Chrome) -> None:
    x, y = source(page, "x"), source(page, "left")
    before = panels(page)[1].screenshot_as_png
    middle = sorted(x)[len(x) // 2]
    low, high = min(y) - 0.005, max(y) + 0.005
    move(page, place(page, 0, min(x) - 0.005, high), place(page, 0, middle, low), drag=True)
    until(page, lambda: chosen(page))
    # The last pixel may fall on either side of the network in the middle.
    assert set(chosen(page)) ^ {one for one, value in enumerate(x) if value < middle} <= {x.index(middle)}
    assert f"{len(chosen(page))} networks are selected." in page.find_element(By.ID, "chosen").text
    until(page, lambda: panels(page)[1].screenshot_as_png != before)
    # A colour's name selects its networks.
    page.find_elements(By.CSS_SELECTOR, "#colours button")[0].click()
    shade = source(page, "colour")
    assert {shade[one] for one in chosen(page)} == {shade[chosen(page)[0]]}
    assert len(chosen(page)) == shade.count(shade[chosen(page)[0]])


def select(page: webdriver.Chrome, *places: int) -> None:
    page.execute_script("explorer.source.selected.indices = arguments[0]", list(places))


def test_the_images_of_a_network_are_its_own_and_say_what_they_became(study: Plan, page: webdriver.Chrome) -> None:
    network = study.networks[1].id
    listed = Select(page.find_element(By.ID, "explorer-images"))
    assert len(listed.options) == 1 + 2
    listed.select_by_value(str(ids(page).index(network)))
    gallery = until(page, lambda: page.find_elements(By.CSS_SELECTOR, ".gallery"))[0]
    rows = [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")]
        for row in gallery.find_elements(By.TAG_NAME, "tr")
    ]
    assert rows == [["image", "3", "3"], ["L∞ δ = 0.03", "still 3", "still 3"], ["L∞ δ = 0.1", "→ 8", "→ 8"]]
    shades = page.execute_script(
        "return [...arguments[0].querySelectorAll('canvas')]"
        ".map((one) => one.getContext('2d').getImageData(2, 3, 1, 1).data[0])",
        gallery,
    )
    assert shades == [40, 41, 203, 203, 208, 208]
    labels = [one.get_attribute("aria-label") for one in gallery.find_elements(By.TAG_NAME, "canvas")]
    assert labels[-1] == "its twin at δ = 0.1, taken for 8"


def test_two_networks_are_compared_by_what_differs_and_by_their_intervals(study: Plan, page: webdriver.Chrome) -> None:
    networks, robustness = frames.load(study)
    first, second = 0, 5
    select(page, first)
    page.find_element(By.XPATH, "//button[text()='compare with the next']").click()
    select(page, second)
    said = {}
    for row in page.find_elements(By.CSS_SELECTOR, "#compared tbody tr"):
        name, *values = [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        said[name] = values
    names = [ids(page)[place] for place in (first, second)]
    facts = networks.set_index("network_id").loc[names]
    assert said["test accuracy"][:2] == [f"{value:.4g}" for value in facts["test_accuracy"]]
    for axis in ("width", "depth", "learning_rate"):
        assert (axis.replace("_", " ") in said) == (facts[axis].nunique() == 2), axis
    measure = next(name for name in said if "class change, δ = 0.1, FGSM" in name)
    rows = robustness[
        (robustness["notion"] == "class_change") & (robustness["delta"] == 0.1) & (robustness["attack"] == "fgsm")
    ]
    one, two = rows.set_index("network_id").loc[names].itertuples()
    assert said[measure][:2] == [f"{row.estimate:.3f} [{row.lower:.3f}, {row.upper:.3f}]" for row in (one, two)]
    apart = one.lower > two.upper or two.lower > one.upper
    assert said[measure][2].endswith("intervals apart" if apart else "intervals overlap")
    page.find_element(By.XPATH, "//button[text()='stop comparing']").click()
    assert not page.find_elements(By.CSS_SELECTOR, "#compared")


def test_a_link_brings_back_the_view_and_the_selection(study: Plan, page: webdriver.Chrome) -> None:
    assert "#" not in page.current_url
    choose(page, "colour", "learning_rate")
    choose(page, "x", "parameters")
    select(page, 2, 4)
    page.find_element(By.ID, "copy-link").click()
    link = until(page, lambda: "#view:" in page.current_url and page.current_url)
    state = page.execute_script("return {...explorer.state}")
    page.get("about:blank")
    page.get(link)
    until(page, lambda: page.execute_script("return document.body.dataset.drawn"))
    assert page.execute_script("return {...explorer.state}") == state
    until(page, lambda: chosen(page) == [2, 4])
    assert (
        Select(page.find_element(By.ID, "explorer-colour")).first_selected_option.get_attribute("value")
        == "learning_rate"
    )


def test_a_link_to_what_is_no_longer_there_opens_the_page_all_the_same(study: Plan, page: webdriver.Chrome) -> None:
    page.get("about:blank")
    page.get((study.study.folder / "report.html").as_uri() + "#view:x=gone&colour=kind&selected=0123&beside=45")
    until(page, lambda: page.execute_script("return document.body.dataset.drawn"))
    assert page.execute_script("return explorer.state.x") == "test_accuracy"
    assert chosen(page) == []


def test_the_selection_comes_down_as_csv(study: Plan, page: webdriver.Chrome, tmp_path: Path) -> None:
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    select(page, 1, 3, 6)
    page.find_element(By.ID, "download").click()
    path = tmp_path / "networks.csv"
    until(page, lambda: path.exists() and path.stat().st_size)
    table = pd.read_csv(path).set_index("network_id")
    assert list(table.index) == [ids(page)[place] for place in (1, 3, 6)]
    networks, robustness = frames.load(study)
    facts = networks.set_index("network_id").loc[table.index]
    assert table["test_accuracy"].tolist() == pytest.approx(facts["test_accuracy"].tolist(), rel=1e-6)
    assert table["learning_rate"].tolist() == facts["learning_rate"].tolist()
    for name, rows in robustness.groupby("measure"):
        there = rows.set_index("network_id").reindex(table.index)
        for column, kind in ((name, "estimate"), (f"{name} lower", "lower"), (f"{name} upper", "upper")):
            assert table[column].tolist() == pytest.approx(there[kind].tolist(), rel=1e-6, nan_ok=True), column


def test_tables_sort_by_number_and_back(page: webdriver.Chrome) -> None:
    table = page.find_element(By.XPATH, "//h2[@id='trends']/following::table[1]")
    heading = next(one for one in table.find_elements(By.TAG_NAME, "th") if one.text == "δ")
    column = table.find_elements(By.TAG_NAME, "th").index(heading) + 1

    def values() -> list[float]:
        cells = table.find_elements(By.CSS_SELECTOR, f"td:nth-child({column})")
        return [float(cell.get_attribute("textContent")) for cell in cells]

    whole = values()
    for direction in ("ascending", "descending"):
        page.execute_script("arguments[0].click()", heading.find_element(By.TAG_NAME, "button"))
        assert heading.get_attribute("aria-sort") == direction
        assert values() == sorted(whole, reverse=direction == "descending")


def test_large_tables_are_unpacked_sorted_and_filtered(study: Plan, page: webdriver.Chrome) -> None:
    written = pd.read_csv(study.study.folder / "tables/regressions.csv")
    details = page.find_element(By.ID, "table-regressions")
    page.execute_script("arguments[0].open = true", details)
    table = until(page, lambda: details.find_elements(By.TAG_NAME, "table"))[0]
    headings = [one.get_attribute("textContent") for one in table.find_elements(By.TAG_NAME, "th")]
    assert headings == [name.replace("_", " ") for name in written.columns]
    column = headings.index("p")
    page.execute_script("arguments[0].click()", table.find_elements(By.CSS_SELECTOR, "th button")[column])
    shown = page.execute_script(
        "return [...arguments[0].tBodies[0].rows].map((row) => row.cells[arguments[1]].textContent)", table, column
    )
    smallest = written["p"].sort_values()[: len(shown)]
    assert [float(one) for one in shown if one != "–"] == pytest.approx(smallest.dropna().tolist(), rel=1e-4)
    details.find_element(By.CSS_SELECTOR, "input").send_keys("learning_rate")
    matching = int(written.astype(str).apply(lambda row: row.str.contains("learning_rate").any(), axis=1).sum())
    at_once = len(shown)
    assert matching < len(written)
    until(page, lambda: len(table.find_elements(By.CSS_SELECTOR, "tbody tr")) == min(matching, at_once))


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
