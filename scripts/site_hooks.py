# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Hooks of MkDocs: files outside docs/ become pages of the site, and links to files that are not pages become code."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "QUALITY_DECLARATION.md": "quality_declaration.md",
    "SECURITY.md": "vulnerabilities.md",
}
"""Files of the repository that become pages, with their places among the pages."""

_LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Return a page's text with links that hold on the site, where the links of the file hold in the repository."""
    place = PurePosixPath(page.file.src_uri)
    source = {page: name for name, page in PAGES.items()}.get(str(place), f"docs/{place}")
    return _LINK.sub(lambda link: _linked(link, source, place), markdown)


def _linked(link: "re.Match[str]", source: str, place: PurePosixPath) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    if "://" in target:
        return link[0]
    path = (ROOT / source).parent.joinpath(target).resolve()
    if not path.is_relative_to(ROOT) or not path.exists():
        return link[0]  # MkDocs reports it
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        page = PAGES[name]
    elif name.startswith("docs/") and path.is_file():
        page = name.removeprefix("docs/")
    else:
        return text if text.startswith("`") else f"{text} (`{name}`)" if text != name else f"`{name}`"
    up = "../" * (len(place.parts) - 1)
    return f"[{text}]({up}{page}{anchor})"
