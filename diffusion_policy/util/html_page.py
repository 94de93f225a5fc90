"""HTML pages that need no other file: images and videos are embedded."""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

MAX_EMBEDDED_VIDEO = 1_000_000
"""Size in bytes up to which a page should embed a video."""


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package, such as ``runs/comparison.html``.

    Every value is escaped. A value that is missing raises jinja2's UndefinedError.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("diffusion_policy", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Let a browser break a name on a narrow screen after a dot, slash, underscore or equals."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([./_=])", r"\1<wbr>", str(escape(text))))


def data_url(mime_type: str, data: bytes) -> str:
    """Return a link that contains the file itself."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def video_url(path: Path, link: str) -> str:
    """Return the video as a data URL, or ``link`` if it is too large to embed."""
    if path.stat().st_size > MAX_EMBEDDED_VIDEO:
        return link
    return data_url("video/mp4", path.read_bytes())


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file. Text stays text, which is sharp and small."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
