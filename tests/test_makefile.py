"""What make does when it is called or ended in a way that was not meant."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Stands for Python: makes a .venv of itself; pip leaves half a package and is killed with its make
# while there is a file "kill".
PYTHON = """#!/bin/sh
case "$*" in
*venv*) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
*install*)
    touch .venv/half
    if [ -f kill ]; then rm kill; make=$(cat .venv/unfinished); kill -9 $make $PPID $$; fi
    mv .venv/half .venv/whole ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        words = ("make", f"PYTHON={python}", *words)
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("setting", ["hydra.run.dir=data/x", "training.debug=true", "task=mine"])
def test_a_setting_of_the_run_is_no_variable_of_make(make, setting):
    name = setting.partition("=")[0]
    result = make("--dry-run", "train", setting)
    assert result.returncode == 2
    assert f'is a setting of the run: write make train ARGS="{name}=..."' in result.stderr
    assert setting in make("--dry-run", "train", f"ARGS={setting} training.seed=1").stdout


def test_a_killed_installation_is_done_anew(make, tmp_path):
    (tmp_path / "kill").touch()
    assert make("install").returncode == -9
    assert (tmp_path / ".venv/half").exists()
    assert "an installation was killed" in make("install").stdout
    assert (tmp_path / ".venv/whole").exists()
    assert not (tmp_path / ".venv/half").exists()
    assert "was killed" not in make("install").stdout
