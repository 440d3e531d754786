"""The page of `explain` in a real browser: it shows all of itself at 1280 px, and asks nobody."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.types import ns
from tests.contract.test_explain import page_of_demo
from tests.graph.test_planted_misses import EVENING, day, explained, site, walking
from workers.explain import page

pytestmark = [pytest.mark.live, pytest.mark.slow]

WIDE, HIGH = 1280, 2400  # px
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: a page is looked at in a real browser")
    return found


class _Asked(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what is asked for."""

    def __init__(self, *args: object, asked: list[str], **kwargs: object) -> None:
        self._asked = asked
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = partial(_Asked, directory=str(folder), asked=asked)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def screenshot(browser: str, url: str, folder: Path) -> np.ndarray:
    """What the browser shows of a page; it may reach this machine alone."""
    file = folder / "page.png"
    subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDE},{HIGH}",
            f"--screenshot={file}", "--virtual-time-budget=3000",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", url,
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    shown = cv2.imread(str(file))
    assert shown is not None
    return shown


def test_the_page_is_whole_at_1280_px_and_asks_for_nothing_else(
    browser: str, tmp_path: Path
) -> None:
    found = explained(site(), day(walking(0.53), glass=0.46))
    shown = page.view(found, at=ns(EVENING + 15.5))
    (tmp_path / "why.html").write_text(page.rendered(shown))
    with served(tmp_path) as (address, asked):
        picture = screenshot(browser, f"{address}/why.html", tmp_path)
    assert [path for path in asked if path != "/favicon.ico"] == ["/why.html"]
    assert picture.shape[1] == WIDE
    text = picture.min(axis=2) < 128  # dark on light, whatever its colour
    assert text.mean() > 0.005
    assert text[:, :4].sum() == 0  # nothing is cut at the sides
    assert text[:, -4:].sum() == 0


@pytest.mark.usefixtures("weights")
def test_the_page_of_the_demo_shows_pictures(browser: str, tmp_path: Path) -> None:
    file = page_of_demo(tmp_path)
    with served(tmp_path) as (address, asked):
        picture = screenshot(browser, f"{address}/{file.name}", tmp_path)
    assert [path for path in asked if path != "/favicon.ico"] == [f"/{file.name}"]
    assert picture.std() > 20
