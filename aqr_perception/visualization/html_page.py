# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: single files that load nothing else."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

_STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --ground: #f4f6f9; --card: #ffffff }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1500px; margin: 0 auto; padding: 24px 20px 60px }
h1 { font-size: 28px; margin: 0 0 4px } h2 { font-size: 20px; margin: 36px 0 8px } h3 { font-size: 17px; margin: 0 }
p { margin: 6px 0 } .soft { color: var(--soft) }
.warning { background: #7a1420; color: #fff; padding: 12px 16px; border-radius: 8px; margin: 16px 0; font-weight: 600 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin: 18px 0 }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px }
.tile b { display: block; font-size: 18px; line-height: 1.3; margin-top: 4px }
.card { margin: 14px 0; overflow-x: auto } .card svg, .card video { display: block; width: 100%; height: auto }
.frame { display: grid; grid-template-columns: 2.8fr 1fr; gap: 8px; margin-top: 10px }
.cameras { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; align-content: start }
figure { margin: 0 } figure img { display: block; width: 100%; border-radius: 4px }
figcaption { color: var(--soft); font-size: 13px } .failed figcaption { color: #b3261e; font-weight: 600 }
.failed img { outline: 3px solid #b3261e }
.missing { background: #e6e9ee; color: var(--soft); border-radius: 4px; padding: 18px 8px; text-align: center }
.swatch { display: inline-block; width: 14px; height: 14px; border-radius: 3px; vertical-align: -2px }
.swatch { margin: 0 4px 0 10px }
@media (max-width: 760px) { .frame { grid-template-columns: 1fr } .cameras { grid-template-columns: repeat(2, 1fr) } }
"""


def element(name: str, *content: str, **attributes: str) -> str:
    """Return an element with HTML content.

    Attribute values are escaped. A trailing underscore of an attribute's name is dropped, as in `class_`.
    """
    written = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(content)}</{name}>"


def text(value: str) -> str:
    """Return plain text, escaped for HTML."""
    return html.escape(value)


def figure(picture: bytes | None, caption: str, *, failed: bool = False, missing: str = "no picture") -> str:
    """Return a figure of a JPEG with its caption; without a JPEG, the figure shows the text `missing`."""
    if picture is None:
        content = element("div", text(missing), class_="missing")
    else:
        data = base64.b64encode(picture).decode()
        content = f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(caption)}">'
    return element("figure", content, element("figcaption", text(caption)), class_="failed" if failed else "shown")


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return a grid of tiles, one for each name and value."""
    content = (element("div", text(name), element("b", text(value)), class_="tile") for name, value in figures)
    return element("div", *content, class_="tiles")


def legend(colours: Mapping[str, str]) -> str:
    """Return a legend of colours (as CSS) and their meanings."""
    entries = (
        element("span", "", class_="swatch", style=f"background:{colour}") + text(meaning)
        for colour, meaning in colours.items()
    )
    return element("p", *entries, class_="soft")


def page(title: str, body: Sequence[str]) -> str:
    """Return the complete document."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n'
        f"<body>{element('main', *body)}</body></html>\n"
    )
