"""CONTRIBUTING.md names files, lists and make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PATHS = sorted(
    {p for p in re.findall(r"`([\w./-]+)`", TEXT) if "/" in p and not p.startswith(".venv")}
    | {p for p in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in p}
)
LISTS = {
    "STORES": "tests/dataset/stores/test_store_contract.py",
    "ENVIRONMENTS": "tests/env/test_contract.py",
    "VARIANTS": "tests/policy/test_contract.py",
    "TOYS": "tests/policy/test_contract.py",
    "CASES": "tests/transforms/test_contract.py",
}


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path):
    assert (ROOT / path).exists()


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", TEXT))
    assert named >= {"install-dev", "lint", "quick", "test"}
    assert named <= targets


@pytest.mark.parametrize(("name", "path"), LISTS.items(), ids=LISTS.keys())
def test_lists_of_the_contract_tests_exist(name, path):
    assert f"`{name}`" in TEXT
    assert re.search(rf"^{name}\b.* = ", (ROOT / path).read_text(), flags=re.MULTILINE)
