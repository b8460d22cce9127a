"""The explorer in a browser, and tables that sort."""

from pathlib import Path

import pandas as pd
import pytest
from report_browser import choose, chosen, ids, move, needs_browser, panels, place, select, source, until
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from deltaball.plan.plan import Plan
from deltaball.tables import frames

pytestmark = needs_browser
# Finds elements inside the shadow roots in which BokehJS draws.
DEEP = """
const deep = (root, wanted) => [...root.querySelectorAll("*")].flatMap((one) =>
  [...(one.matches(wanted) ? [one] : []), ...(one.shadowRoot ? deep(one.shadowRoot, wanted) : [])]);
"""
TITLES = "return [...Bokeh.index.roots].flatMap((one) => (one.model.title ? [one.model.title.text] : []))"


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


def test_networks_of_one_kind_are_coloured_by_objective_and_long_titles_take_lines(
    browser: webdriver.Chrome, root: Path
) -> None:
    browser.get((root / "results/small-framework/report.html").as_uri())
    until(browser, lambda: browser.execute_script("return document.body.dataset.drawn"))
    assert Select(browser.find_element(By.ID, "explorer-colour")).first_selected_option.text == "objective"
    label = Select(browser.find_element(By.ID, "explorer-left")).first_selected_option.text
    titles = "return [...Bokeh.index.roots].flatMap((one) => (one.model.left ? [one.model.left[0].axis_label] : []))"
    (broken,) = {one for one in browser.execute_script(titles) if one.replace("\n", " ") == label}
    lines = broken.split("\n")
    assert len(lines) > 1
    assert all(len(line) <= 45 or ", " not in line for line in lines)
