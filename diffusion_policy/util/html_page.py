"""HTML pages that need no other file: pictures and videos travel inside them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

MAX_EMBEDDED_VIDEO = 1_000_000
"""Bytes up to which a video should go into a page."""


class Html(str):
    """Text that is HTML already; every other text is escaped."""

    __slots__ = ()


def escaped(text: Any) -> Html:
    """``text`` as HTML shows it, and as the value of an attribute."""
    return text if isinstance(text, Html) else Html(html.escape(str(text), quote=True))


def data_url(mime_type: str, data: bytes) -> str:
    """A file as a link that holds it."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def video(path: Path, link: str, caption: Html) -> Html:
    """A player with a caption; ``link`` leads to a video that is too large for the page."""
    source = escaped(link)
    if path.stat().st_size <= MAX_EMBEDDED_VIDEO:
        source = data_url("video/mp4", path.read_bytes())
    return Html(
        f'<figure><video controls muted loop playsinline preload="metadata" src="{source}">'
        f"</video><figcaption>{caption}</figcaption></figure>"
    )


def table(header: Sequence[Any], *bodies: Iterable[Sequence[Any]], name: str = "") -> Html:
    """A table with a group of rows for each of ``bodies``; ``name`` is its class."""

    def row(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    groups = (f"<tbody>{''.join(row(cells, 'td') for cells in rows)}</tbody>" for rows in bodies)
    attribute = f' class="{escaped(name)}"' if name else ""
    return Html(f"<table{attribute}><thead>{row(header, 'th')}</thead>{''.join(groups)}</table>")


def page(title: str, body: str, style: str = "") -> str:
    """A whole page; ``style`` adds to :data:`STYLE`."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title><style>{STYLE}{style}</style></head>
<body>
<h1>{escaped(title)}</h1>
{body}
</body></html>
"""


STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1000px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; }
.source { color: #666; overflow-wrap: anywhere; }
img { max-width: 100%; }
.videos { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; width: 310px; max-width: 100%; } video { width: 100%; border: 1px solid #ddd; }
figcaption { font-size: 0.85em; }
.success { color: #2a7f4f; } .failure { color: #b5483a; }
table { border-collapse: collapse; } th, td { padding: 0.2em 1.2em 0.2em 0; text-align: right;
        border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
"""
