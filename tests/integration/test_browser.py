"""The dashboard in a real browser, over a study that paropt really ran.

With PAROPT_SCREENSHOTS=DIR the pictures of docs/dashboard.md are written there, of a longer study.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.browser

# read before the tests' own environment is cleared
NO_BROWSER = os.environ.get("PAROPT_NO_BROWSER")
SCREENSHOTS = os.environ.get("PAROPT_SCREENSHOTS")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOREIGN = "shop.example"  # a name that the browser takes for this machine, as after DNS rebinding
SECONDS = 60

EPOCHS, TRIALS, SLOTS = (6, 12, 2) if SCREENSHOTS else (2, 3, 1)
PATIENCE = 3600 if SCREENSHOTS else 280  # seconds for all trials
GRU4REC, HSTU = {"when": {"model": "gru4rec"}}, {"when": {"model": "hstu"}}
SPACE = {
    "fixed": {
        "n_epochs": EPOCHS,
        "layers": {"value": 32, **GRU4REC},
        "n_sample": {"value": 128, **GRU4REC},
        "dim": {"value": 16, **HSTU},
        "max_length": {"value": 20, **HSTU},
        "experts": {"value": 4, **HSTU},
        "batch_size": {"value": 256, **HSTU},
    },
    "search": {
        "model": {"type": "categorical", "choices": ["gru4rec", "hstu"]},
        "learning_rate": [
            {"type": "float", "low": 0.01, "high": 0.2, "log": True, **GRU4REC},
            {"type": "float", "low": 0.0003, "high": 0.02, "log": True, **HSTU},
        ],
        "dropout": {"type": "float", "low": 0.0, "high": 0.4, "step": 0.1, **HSTU},
        "dropout_p_embed": {"type": "float", "low": 0.0, "high": 0.4, "step": 0.1, **GRU4REC},
    },
    "start": [
        {"model": "hstu", "learning_rate": 0.005, "dropout": 0.1},
        {"model": "gru4rec", "learning_rate": 0.05, "dropout_p_embed": 0.0},
    ],
}
TITLES = {
    "over-time": "mrr@20 on valid against time spent",
    "learning-curves": "Learning curves on valid",
    "best-per-model": "mrr@20 of each model at equal spend",
    "similarity": "Similarity of positives and negatives",
    "separation": "How far positives stand apart from negatives",
    "cosines-hstu-positives": "Cosines of positives (hstu, trial",
    "cosines-hstu-negatives": "Cosines of negatives (hstu, trial",
    "experts-hstu-load": "Load of the experts (hstu, trial",
    "experts-hstu-max-violation": "Busiest expert: load / mean − 1 (hstu, trial",
    "experts-hstu-entropy": "Evenness of the experts' load (hstu, trial",
    "experts-hstu-dead": "Dead experts: load under a tenth of the mean (hstu, trial",
}


@dataclass(frozen=True)
class Site:
    """A dashboard process and its study."""

    url: str  # with the token
    best: dict[str, Any]

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.url).query)["token"][0]

    def page(self, path: str = "", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/dashboard{path}"

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, bytes]:
        """Plain HTTP, without a browser."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, headers={"Accept-Encoding": "identity", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture(scope="module")
def environment(module_database_url: str, browser: WebDriver) -> Iterator[dict[str, str]]:
    """For paropt as a process; needs ``browser``, so that nothing is run where there is none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAROPT_")}
    with tempfile.TemporaryDirectory(prefix="paropt-browser-") as home:
        yield {
            **kept,
            "PAROPT_HOME": home,
            "PAROPT_STORAGE": module_database_url,
            "OMP_NUM_THREADS": "1",
        }


@pytest.fixture(scope="module")
def best(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, ring: Path) -> Any:
    """The best trial of a study of two models; on the demo data, where pictures are taken."""
    data = "demo" if SCREENSHOTS else str(ring)
    space = tmp_path_factory.mktemp("space") / "space.json"
    space.write_text(json.dumps(SPACE))
    command = [sys.executable, "-m", "paropt", "launch", "--json", "--study", "shop"]
    command += ["--space", str(space), "--data", data, "--trials", str(TRIALS)]
    command += ["--devices", "cpu", "--per-device", str(SLOTS)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=space.parent, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["best"]


@contextmanager
def dashboard(environment: dict[str, str], best: Any, *options: str) -> Iterator[Site]:
    process = subprocess.Popen(
        [sys.executable, "-m", "paropt", "dashboard", "--port", "0", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Site(process.stdout.readline().strip(), best)
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module")
def site(environment: dict[str, str], best: Any) -> Iterator[Site]:
    with dashboard(environment, best) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """Chromium without a window, with a profile of its own; nothing is downloaded."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if NO_BROWSER:
        pytest.skip(f"no browser: {NO_BROWSER}")
    if program is None or driver is None:
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    with tempfile.TemporaryDirectory(prefix="paropt-chromium-") as profile:
        for argument in (
            "headless=new",
            "disable-gpu",
            "disable-quic",
            "disable-dev-shm-usage",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "no-first-run",
            "window-size=1400,1100",
            f"user-data-dir={profile}",
            f"host-resolver-rules=MAP {FOREIGN} 127.0.0.1",
            *(["no-sandbox"] if os.geteuid() == 0 else []),
        ):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        yield started
        started.quit()


@pytest.fixture
def inside(browser: WebDriver, site: Site) -> WebDriver:
    """The browser after the printed address was opened."""
    browser.delete_all_cookies()
    browser.get(site.url)
    return browser


def until(browser: WebDriver, holds: Callable[[WebDriver], Any], what: str) -> Any:
    return WebDriverWait(browser, SECONDS, 0.05).until(holds, f"{what} did not appear")


def shown(browser: WebDriver) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def until_shown(browser: WebDriver, *words: str) -> str:
    until(browser, lambda b: all(word in shown(b) for word in words), f"{words}")
    return shown(browser)


def answer_to(browser: WebDriver, method: str, path: str) -> list[Any]:
    """Status and text of what the page itself asks for, with the cookies that it has."""
    script = """
        const [method, path, done] = arguments;
        fetch(path, {method, body: method === "GET" ? undefined : "{}"})
            .then(async (answer) => done([answer.status, await answer.text()]))
            .catch((error) => done([0, String(error)]));
    """
    found: list[Any] = browser.execute_async_script(script, method, path)
    return found


def keep(name: str, *elements: Any, columns: int = 1) -> None:
    """A picture of the elements for the docs, in few colours so that it is small."""
    if not SCREENSHOTS:
        return
    pictures = [Image.open(io.BytesIO(element.screenshot_as_png)) for element in elements]
    wide, high = pictures[0].size
    rows = -(-len(pictures) // columns)
    joined = Image.new("RGB", (wide * columns, high * rows), "white")
    for place, picture in enumerate(pictures):
        joined.paste(picture, (place % columns * wide, place // columns * high))
    Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
    few = joined.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(Path(SCREENSHOTS) / f"dashboard-{name}.png", optimize=True)


# -- what there is to see -----------------------------------------------------------------------


def test_the_printed_address_opens_the_list_of_studies(inside: WebDriver, site: Site) -> None:
    until_shown(inside, "shop")
    assert "token" not in inside.current_url and site.token not in inside.page_source
    assert inside.execute_script("return document.cookie") == ""  # out of scripts' reach
    (cookie,) = inside.get_cookies()
    assert (cookie["value"], cookie["httpOnly"], cookie["sameSite"]) == (site.token, True, "Lax")


def test_every_plot_is_there_with_its_data(inside: WebDriver, site: Site) -> None:
    inside.get(site.page("/studies/1"))
    plots = until(
        inside,
        lambda b: b.execute_script(
            """
            const found = [...document.querySelectorAll('[id^="user-defined-plot:"]')];
            if (!found.length || !found.every(e => e.querySelector(".gtitle"))) return null;
            return found.map(e => [e.id.split(":")[1], e.querySelector(".gtitle").textContent,
                e.data.map(trace => [trace.type, trace.name || "", (trace.z || trace.y).length]),
                e.querySelectorAll(".trace, .hm, .point").length]);
            """
        ),
        "the plots",
    )
    found = {name: (title, traces, drawn) for name, title, traces, drawn in plots}
    # with enough trials of a model, its parameters' importance too
    assert {name for name in found if not name.startswith("importance-")} == TITLES.keys()
    for name, (title, traces, drawn) in found.items():
        assert title.startswith(TITLES.get(name, "What matters for"))
        assert traces and drawn, name
        assert all(length for _, _, length in traces), name
    floors = {name for _, name, _ in found["over-time"][1]}
    assert floors >= {"best so far", "popularity", "co-occurrence"}
    assert {"gru4rec, complete", "hstu, complete"} & floors
    curves = {name: length for _, name, length in found["learning-curves"][1]}
    assert curves[f"trial {site.best['trial']}, the best"] == EPOCHS
    assert found["experts-hstu-load"][1] == [["heatmap", "", 8]]  # 4 experts in each of 2 layers
    assert "at equal spend" in {name for _, name, _ in found["best-per-model"][1]}
    severe = [line for line in inside.get_log("browser") if line["level"] == "SEVERE"]
    assert not severe
    # the header and Plotly's tools would lie over the pictures
    inside.execute_script(
        "const style = document.createElement('style');"
        "style.textContent = 'header, .modebar { visibility: hidden }';"
        "document.head.append(style);"
    )
    plots = [inside.find_element(By.ID, f"user-defined-plot:{name}") for name in found]
    keep("plots", *plots, columns=2)


def test_the_note_says_what_is_searched(inside: WebDriver, site: Site) -> None:
    inside.get(site.page("/studies/1/note"))
    text = until_shown(inside, "fingerprint", "How to go on")
    for words in ("gru4rec and hstu", "learning_rate", "popularity", "paropt export shop"):
        assert words in text, words
    assert f"{site.best['value']:.4f}" in text
    # nothing can be edited here, so nothing offers it
    for icon in inside.find_elements(By.CSS_SELECTOR, '[data-testid="EditIcon"]'):
        assert not icon.is_displayed()


@pytest.mark.parametrize("dark", [False, True])
def test_a_report_is_read_on_a_telephone(
    browser: WebDriver, environment: dict[str, str], best: Any, tmp_path: Path, dark: bool
) -> None:
    command = [sys.executable, "-m", "paropt", "report", "shop", "--out", str(tmp_path / "r.html")]
    subprocess.run(command, env=environment, check=True, timeout=120)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get((tmp_path / "r.html").as_uri())
        told = browser.execute_script(
            """
            const light = (of, what) => getComputedStyle(of)[what].match(/[0-9]+/g).map(Number)
                .slice(0, 3).reduce((sum, part) => sum + part) / 765;
            const shown = [...document.querySelectorAll("svg")].filter(e => e.clientWidth);
            return {
                wide: document.documentElement.scrollWidth,
                small: Math.min(...shown.flatMap(e => [...e.querySelectorAll("text")].map(
                    t => parseFloat(getComputedStyle(t).fontSize) * e.clientWidth
                         / e.viewBox.baseVal.width))),
                figures: shown.length,
                paper: light(document.body, "backgroundColor"),
                ink: light(shown[0].querySelector("text"), "fill"),
            };
            """
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert told["wide"] == 400  # wide tables scroll in their boxes
    assert told["figures"] >= 3 and told["small"] >= 9  # pixels of the smallest letters
    assert (told["paper"] < 0.3, told["ink"] > 0.7) == (dark, dark)
    if SCREENSHOTS and not dark:
        browser.set_window_size(1000, 1560)
        keep("report", browser.find_element(By.TAG_NAME, "body"))
        browser.set_window_size(1400, 1100)


def test_a_trial_opens_with_its_attributes_and_files(inside: WebDriver, site: Site) -> None:
    number = site.best["trial"]
    inside.get(site.page("/studies/1/trials"))
    trial = until(
        inside,
        lambda b: b.find_elements(By.XPATH, f"//li//*[text()='Trial {number}']"),
        "the trial in the list",
    )
    trial[0].click()
    text = until_shown(inside, f"Trial {number} (trial_id={number + 1})", "Artifacts")
    for name in ("recall@20", "events/s", "seconds per epoch", "peak memory", "why it ended"):
        assert f"\n{name} " in text, name
    attributes = ("events_per_second", "seconds_per_epoch", "peak_memory_mib", "device cpu", "host")
    for name in (*attributes, "why complete"):
        assert f"\n{name}" in text, name
    name = f"trial{number}"
    for ending in (".json", "-curve.svg", "-epochs.csv"):
        assert f"{name}{ending}" in text
    picture = until(inside, lambda b: b.find_elements(By.XPATH, "//img"), "the curve")[0]
    until(inside, lambda b: picture.get_property("naturalWidth"), "the drawn curve")
    if SCREENSHOTS:
        inside.set_window_size(1400, 1560)
        keep("trial", inside.find_element(By.TAG_NAME, "body"))
        inside.set_window_size(1400, 1100)
    check_files(inside, site, name)


def check_files(browser: WebDriver, site: Site, name: str) -> None:
    """What the links lead to, and what the table of a CSV shows."""
    links = browser.find_elements(By.CSS_SELECTOR, "a[aria-label='download artifact']")
    paths = {link.get_attribute("download"): link.get_attribute("href") for link in links}
    status, text = answer_to(browser, "GET", str(paths[f"{name}.json"]))
    assert status == 200
    assert json.loads(text)["provenance"]["value"] == site.best["value"]
    path = urlsplit(str(paths[f"{name}.json"])).path
    assert site.ask("GET", path)[0] == 401
    browser.find_element(By.CSS_SELECTOR, "[aria-label='show artifact table']").click()
    rows = ".MuiModal-root table tr"
    # a page of it has ten epochs
    until(browser, lambda b: len(b.find_elements(By.CSS_SELECTOR, rows)) > EPOCHS, "its epochs")
    heads = [head.text for head in browser.find_elements(By.CSS_SELECTOR, ".MuiModal-root th")]
    heads = [head.partition("\n")[0] for head in heads]  # then come words for screen readers
    assert {"epoch", "mrr@20", "loss", "seconds", "events_per_second"} <= set(heads)


# -- who may do what ----------------------------------------------------------------------------


def test_a_reading_session_cannot_delete(inside: WebDriver, site: Site) -> None:
    until_shown(inside, "shop")
    status, text = answer_to(inside, "DELETE", "/api/studies/1")
    assert (status, "--writable" in text) == (405, True)
    assert site.ask("DELETE", "/api/studies/1", Authorization=f"Bearer {site.token}")[0] == 405
    inside.refresh()
    until_shown(inside, "shop")


def test_without_the_token_there_is_nothing(browser: WebDriver, site: Site) -> None:
    browser.get(site.page())
    browser.delete_all_cookies()
    browser.get(site.page("/studies/1"))
    assert "token" in until_shown(browser, "401 Unauthorized")
    assert answer_to(browser, "GET", "/api/studies/1")[0] == 401
    assert "shop" not in browser.page_source


def test_even_a_writable_one_takes_deletes_from_nobody_else(
    browser: WebDriver, environment: dict[str, str], best: Any
) -> None:
    with dashboard(environment, best, "--writable") as site:
        browser.get(site.page())
        browser.delete_all_cookies()
        assert answer_to(browser, "DELETE", "/api/studies/1")[0] == 401
        assert site.ask("DELETE", "/api/studies/1")[0] == 401

        # a page elsewhere that points its own name at us, with the cookie and all
        browser.get(site.page(f"?token={site.token}", host=FOREIGN))
        assert f"{FOREIGN}: not served here" in until_shown(browser, "403 Forbidden")
        assert answer_to(browser, "DELETE", "/api/studies/1")[0] == 403
        bearer = {"Authorization": f"Bearer {site.token}"}
        assert site.ask("DELETE", "/api/studies/1", Host=FOREIGN, **bearer)[0] == 403
        status, body = site.ask("GET", "/api/studies", **bearer)
        assert status == 200
        assert [one["study_name"] for one in json.loads(body)["study_summaries"]] == ["shop"]
