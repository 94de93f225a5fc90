from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

import diffusion_policy
from diffusion_policy.util.html_page import _environment, svg

PACKAGE = Path(diffusion_policy.__file__).parent


def test_pages_escape_every_value():
    template = _environment().from_string("{{ name }} <a title='{{ name }}'>{{ name | breakable }}")
    page = template.render(name="<b onload='x'>&_</b>")
    assert "<b" not in page
    assert "='x'" not in page
    for path in PACKAGE.rglob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape", path.read_text()), path


def test_figures_escape_every_text():
    figure = Figure()
    figure.text(0, 0, "<script>x</script>")
    assert b"<script" not in svg(figure)
