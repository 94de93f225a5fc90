"""Packages import downwards: docs/design.md tells the order, and these tests keep it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffusion_policy"

# What each package may import of the others. A package that is missing here fails the test.
MAY_IMPORT = {
    "util": set(),
    "spec": {"util"},
    "transforms": {"util", "spec"},
    "env": {"util", "spec", "transforms"},
    "gym_util": {"util", "spec", "env"},
    "model": {"util", "spec"},
    "dataset": {"util", "spec", "transforms", "model", "env"},
    "policy": {"util", "spec", "model", "dataset"},
}
MAY_IMPORT["checkpoint"] = {*MAY_IMPORT["policy"], "policy", "transforms"}
MAY_IMPORT["agent"] = {*MAY_IMPORT["checkpoint"], "checkpoint"}
MAY_IMPORT["interop"] = MAY_IMPORT["agent"]
MAY_IMPORT["workspace"] = {*MAY_IMPORT["agent"], "agent"}
MAY_IMPORT["env_runner"] = {*MAY_IMPORT["workspace"], "workspace", "gym_util", "env"}
MAY_IMPORT["runs"] = {*MAY_IMPORT["env_runner"], "env_runner"}
MAY_IMPORT["inspection"] = {*MAY_IMPORT["dataset"], "dataset", "gym_util"}
MAY_IMPORT["common"] = set(MAY_IMPORT) - {"runs"}  # the names of the ancestor, for users alone
MAY_IMPORT["config"] = set()
MAY_IMPORT["scripts"] = set(MAY_IMPORT) - {"common"}

TORCH_FREE = ("spec", "gym_util", "env", "runs", "transforms")


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, type hints left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_rooms_below(room):
    for path in (PACKAGE / room).rglob("*.py"):
        for name in imports(path):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package == "diffusion_policy" and other not in ("", room):
                assert other in MAY_IMPORT[room], f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_order_has_no_circle():
    left = dict(MAY_IMPORT)
    while left:
        free = [room for room, others in left.items() if not others & left.keys()]
        assert free, f"circle among {sorted(left)}"
        for room in free:
            del left[room]


@pytest.mark.slow
def test_modules_import_each_other_without_a_circle():
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    left = {name: set(imports(path)) & modules.keys() - {name} for name, path in modules.items()}
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        assert free, f"circle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("room", TORCH_FREE)
def test_some_rooms_import_no_torch(room):
    for path in (PACKAGE / room).rglob("*.py"):
        assert "torch" not in {name.partition(".")[0] for name in imports(path)}, path
