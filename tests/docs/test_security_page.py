"""Each line of docs/security.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ROWS = [
    row
    for row in PAGE.read_text().splitlines()
    if row.startswith("|") and not row.startswith(("|---", "| a file could"))
]


def test_the_page_has_lines():
    assert len(ROWS) > 10


@pytest.mark.parametrize("row", ROWS)
def test_a_line_names_its_test(row):
    tests = re.findall(r"\[(test_\w+)\]\((\S+)\)", row.split("|")[-2])
    assert tests, row
    for name, link in tests:
        assert f"def {name}(" in (PAGE.parent / link).read_text(), name
