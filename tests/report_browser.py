"""The report in Chromium, for tests: a study to show, the browser, and what a reader does with the page."""

import shutil
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from deltaball.plan.plan import Plan
from deltaball.tables import columns

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver are here")
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


def select(page: webdriver.Chrome, *places: int) -> None:
    page.execute_script("explorer.source.selected.indices = arguments[0]", list(places))


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
