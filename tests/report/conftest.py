"""A finished study as the browser shows it."""

from collections.abc import Iterator

import pytest
from builders import grid
from drawn_figures import page_without_pictures
from report_browser import BROWSER, DRIVER, FLAGS, examples, scorecard, until
from selenium import webdriver
from synthetic_tables import both_sides, write_tables

from deltaball.analysis import writing
from deltaball.plan.plan import Plan
from deltaball.tables import frames


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
