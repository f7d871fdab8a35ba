"""The app in a real browser: how fast it answers, and how it looks.

    python -m experiments.browser latencies [--moves 8]      some 60 s; prints a table, in seconds
    python -m experiments.browser screenshots [FOLDER]       some two minutes; the README's, into docs/

Needs the extras `app` and `dev`, and a Chromium (`--chromium PATH` says where). A server is started on a free port. A
latency is from the key that moves a slider to the moment other curves are drawn and nothing runs any more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent


def chromium(path: str | None = None) -> str | None:
    """The path of a Chromium, if one is installed."""
    return path or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def server(folder: Path = ROOT, environment: dict[str, str] | None = None) -> Iterator[str]:
    """The app's address, served from a process of its own that ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    variables = {**os.environ, "PYTHONPATH": paths, **(environment or {})}
    options = ROOT / ".streamlit" / "config.toml"
    if folder != ROOT:  # settings are read from the working folder
        (folder / ".streamlit").mkdir(exist_ok=True)
        shutil.copy(options, folder / ".streamlit")
    process = subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the app does not start: {process.stderr.read()[-2000:] if process.stderr else ''}")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def browser(path: str) -> Iterator[Any]:
    """A page of a headless browser, and in its `outside` the requests to anywhere but the app."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = program.new_page(viewport={"width": 1400, "height": 1300})
        page.set_default_timeout(180_000)  # a machine may be busy
        yield page
        program.close()


def watch_requests(page: Any) -> list[str]:
    """A list that fills with the addresses of requests beyond this machine."""
    outside: list[str] = []
    local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(local) else outside.append(request.url))
    return outside


def settled(page: Any) -> None:
    """Wait until no script runs and nothing is stale."""
    page.wait_for_function('() => !document.querySelector(\'[data-testid="stStatusWidget"], [data-stale="true"]\')')


def sentence(page: Any) -> str:
    """What the page says about its first configuration."""
    return page.locator("[data-testid='stMarkdownContainer'] p", has_text="mean staleness").first.inner_text()


LINES = "[...document.querySelectorAll('.mark-line path')].map(path => path.getAttribute('d')).join()"


def timed(page: Any, act: Callable[[], Any]) -> float:
    """Seconds from an act to other curves on a page at rest."""
    before, began = page.evaluate(f"() => {LINES}"), time.perf_counter()
    act()
    page.wait_for_function(f"([before]) => {LINES} && {LINES} !== before", arg=[before])
    settled(page)
    return time.perf_counter() - began


def first_paint(page: Any, address: str) -> float:
    """Seconds from the address to the first figure, drawn."""
    began = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("[data-testid='stVegaLiteChart'] :is(canvas, svg.marks)")
    return time.perf_counter() - began


def slider(page: Any, label: str) -> Any:
    """The handle of a slider."""
    return page.get_by_role("slider", name=label)


def latencies(page: Any, address: str, moves: int) -> None:
    """Measure, and print a table."""
    rows: list[tuple[str, list[float]]] = []
    outside = watch_requests(page)
    rows.append(("first paint, server just started", [first_paint(page, address)]))
    settled(page)
    rows.append(("first paint, another page", [first_paint(page, address) for _ in range(3)]))
    settled(page)
    first_paint(page, f"{address}/?preset=default&seeds=100:103&a.outer.lr=0.0463")
    settled(page)
    time.sleep(8)  # the programs are made ready
    for tab, label, key in (
        ("Cluster", "local steps H", "ArrowRight"),
        ("Outer", "learning rate", "ArrowRight"),
        ("Outer", "momentum β", "ArrowLeft"),
    ):
        page.get_by_role("tab", name=tab).click()
        handle = slider(page, label)
        seconds = [timed(page, lambda handle=handle, key=key: handle.press(key)) for _ in range(moves)]
        rows.append((f"move of {label!r}", seconds))
    page.get_by_role("tab", name="Cluster").click()
    handle = slider(page, "workers k")
    rows.append(("another number of workers", [timed(page, lambda: handle.press("ArrowRight")) for _ in range(2)]))
    rows.append(("the same again", [timed(page, lambda: handle.press("ArrowLeft")) for _ in range(2)]))
    print(f"{'':36} {'median':>8} {'largest':>8} {'of':>4}")
    for name, seconds in rows:
        print(f"{name:36} {median(seconds):8.2f} {max(seconds):8.2f} {len(seconds):4}")
    print(f"requests beyond this machine: {len(outside)}{''.join(f'{chr(10)}  {url}' for url in outside)}")


def screenshots(page: Any, address: str, folder: Path) -> None:
    """One of each page, into a folder; a small sweep, and a small training, are made for their own."""
    for name, at in PICTURES.items():
        page.goto(f"{address}{at}")
        page.wait_for_selector("h3")
        settled(page)
        if name == "sweep":
            page.get_by_role("button", name="Run", exact=True).click()
            page.wait_for_function("() => /all [0-9,]+ runs are done/i.test(document.body.innerText)")
        if name == "promote":
            page.get_by_role("button", name="Train", exact=True).click()
            page.wait_for_function(
                "() => /done; the run is in the store/.test(document.body.innerText)", timeout=600_000
            )
            page.wait_for_function("() => document.querySelectorAll('[data-testid=stVegaLiteChart]').length == 2")
        page.wait_for_timeout(2000)
        page.screenshot(path=folder / f"app-{name}.png", full_page=True)


PICTURES = {
    "explore": "/",
    "sweep": "/sweep?preset=fast&sweep.seeds=0:6&sweep.y=cluster.grace%3Dlinear:0:4:5",
    "compare": "/compare?compare=leaderboard",
    "promote": "/promote?size=tiny&b.outer.method=delayed_nesterov",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["latencies", "screenshots"])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs")
    parser.add_argument("--moves", type=int, default=8)
    parser.add_argument("--chromium")
    arguments = parser.parse_args()
    path = chromium(arguments.chromium)
    if path is None:
        raise SystemExit("chromium: none is installed; --chromium says where one is")
    with tempfile.TemporaryDirectory() as folder:
        store = {"TOYBENCH_STORE": f"{folder}/runs.sqlite"}
        with server(ROOT, store) as address, browser(path) as page:
            if arguments.what == "latencies":
                latencies(page, address, arguments.moves)
            else:
                screenshots(page, address, arguments.folder)


if __name__ == "__main__":
    main()
