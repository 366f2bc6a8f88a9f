# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: it builds without a warning, and a browser finds every page without an error."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from helpers.documents import script
from helpers.places import ROOT

CLICKED = ("quickstart.html", "how_aqr_works.html", "troubleshooting.html", "reference/python/detector.html")
"""Pages that the browser opens; each takes it half a second of a core. The links of all pages are read without it."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def built(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Build the documentation of this checkout into a folder."""
    pytest.importorskip("material", reason="needs mkdocs-material; run `make docs`")
    pytest.importorskip("mkdocstrings", reason="needs mkdocstrings; run `make docs`")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder), *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = built(folder, "--strict")
    assert done.returncode == 0, done.stderr
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    """Handler that writes no lines about its requests."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Links(HTMLParser):
    """Links, sources and anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.named: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given.get("id") or "", given.get("name") or ""}
        if "canonical" not in (given.get("rel") or ""):
            self.named |= {given.get("href") or "", given.get("src") or ""}


@pytest.mark.slow
def test_every_link_of_every_page_leads_somewhere_and_no_page_loads_from_elsewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert len(pages) > 40
    anchors = {path.resolve(): links.anchors for path, links in pages.items()}
    lost = []
    for path, links in pages.items():
        if path.name == "404.html":
            continue  # its links start at the root of a server
        for link in links.named:
            if re.match(r"(https?|data|javascript|mailto):", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            place = (path.parent / target).resolve() if target else path.resolve()
            if not place.exists() or anchor not in anchors.get(place, {anchor}):
                lost.append(f"{path.relative_to(site)}: {link}")
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', path.read_text())
        assert loaded == [], path
    assert lost == []


@pytest.mark.slow
def test_pages_hold_what_comes_from_elsewhere(site: Path) -> None:
    assert "Detect objects in bags" in (site / "reference" / "command_line.html").read_text()
    detector = (site / "reference" / "python" / "detector.html").read_text()
    assert "choose_formats" in detector, "from docstrings"
    assert ">formats</span></code>" in detector and "<code>device,</code>" not in detector, "one entry for each name"
    assert "Keep a Changelog" in (site / "changelog.html").read_text(), "a file outside docs/"


@pytest.mark.slow
def test_a_browser_clicks_from_section_to_section_without_an_error_or_a_request_elsewhere(address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright; pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium; apt-get install chromium")
    said: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on(
            "response", lambda answer: said.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
        )
        page.goto(f"{address}/index.html")
        for path in CLICKED:
            page.evaluate(
                "path => [...document.querySelectorAll('.md-sidebar--primary a.md-nav__link')]"
                ".find(link => link.href.split('#')[0].endsWith(path)).click()",
                f"/{path}",
            )
            page.wait_for_url(f"**/{path}", wait_until="load")
            assert page.text_content("h1"), path
            broken = page.eval_on_selector_all("img", "all => all.filter(one => !one.naturalWidth).map(one => one.src)")
            assert broken == [], path
        page.keyboard.press("f")
        page.keyboard.type("score_threshold")
        page.wait_for_selector(".md-search-result__item")
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.slow
def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Page\n\n[a page](nowhere.md) and [a place](#nowhere)\n")
    settings |= {"docs_dir": "docs", "plugins": [], "hooks": [], "nav": ["index.md"]}
    (tmp_path / "mkdocs.yml").write_text(json.dumps(settings))
    done = built(tmp_path / "site", "--strict", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr and "#nowhere" in done.stderr


def test_an_entry_of_several_names_becomes_one_for_each() -> None:
    pytest.importorskip("griffe", reason="needs mkdocstrings; run `make docs`")
    docstring = "About.\n\nAttributes:\n    low, high: range\n        of a number.\n    name: text, more: text"
    entries = "    low: range\n        of a number.\n    high: range\n        of a number.\n    name: text, more: text"
    separated = script("scripts/docstring_names.py").separated
    assert separated(docstring) == f"About.\n\nAttributes:\n{entries}"


def test_figures_are_drawn_from_the_shipped_weights() -> None:
    folder = ROOT / "docs" / "figures"
    source = json.loads((folder / "source.json").read_text())
    weights = ROOT / "aqr_perception" / "weights" / f"{source['preset']}.safetensors"
    now = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert source["weights_sha256"] == now, "the weights have changed; run scripts/draw_figures.py"
    drawn = re.findall(r'"(\w+\.png)": draw_', (ROOT / "scripts" / "draw_figures.py").read_text())
    assert {path.name for path in folder.iterdir()} == {*drawn, "source.json"}
    page = (ROOT / "docs" / "how_aqr_works.md").read_text()
    assert drawn and [name for name in drawn if f"(figures/{name})" not in page] == []
