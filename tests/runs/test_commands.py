import json
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs.fake_runs import make_run

ROOT = Path(__file__).parents[2]
COMMANDS = """
import runpy, sys
sys.argv = ["multirun_metrics.py", "-i", "sweep", "-k", "test/mean_score"]
runpy.run_path(f"{sys.path[0]}/multirun_metrics.py", run_name="__main__")
sys.argv = ["compare", "sweep", "--output", "page.html"]
runpy.run_module("diffusion_policy.scripts.compare", run_name="__main__")
import diffusion_policy.runs, importlib, pkgutil
for module in pkgutil.iter_modules(diffusion_policy.runs.__path__, "diffusion_policy.runs."):
    importlib.import_module(module.name)
    assert "torch" not in sys.modules, f"{module.name}: torch takes a gigabyte of a running sweep"
"""


def run_metrics(monkeypatch, *arguments):
    """The exit code of multirun_metrics.py; None without sys.exit."""
    monkeypatch.setattr(sys, "argv", ["multirun_metrics.py", *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / "multirun_metrics.py"), run_name="__main__")
    except SystemExit as end:
        return end.code
    return None


@pytest.mark.slow
def test_commands_work_from_anywhere_and_without_torch(tmp_path):
    make_run(tmp_path / "sweep" / "train_0", [0.1, 0.2])
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{COMMANDS}"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "max                               0.2000\n" in result.stdout
    assert "1 run; look at page.html" in result.stdout
    assert (tmp_path / "sweep/metrics/metrics.json").exists()


def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys):
    assert run_metrics(monkeypatch, "-i", tmp_path / "none") == 1
    message = f"error: {tmp_path}/none is not a directory; give an output directory of train.py -m"
    assert capsys.readouterr().err == message + "\n"


def test_table_by_default_of_test_scores(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "train_0", [0.1, 0.2])
    assert run_metrics(monkeypatch, "--table", "-i", tmp_path) is None
    assert "| dot | 0.200 / 0.200 (1 seed) |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-k", "a/x", "-k", "b/y"], ["-k", "a/x", "b/y"]])
def test_several_scores_may_be_given_in_two_ways(tmp_path, monkeypatch, options):
    make_run(tmp_path / "train_0", [0.1, 0.2], **{"a/x": 0.5, "b/y": 0.25})
    assert run_metrics(monkeypatch, "-i", tmp_path, *options) is None
    metrics = json.loads((tmp_path / "metrics/metrics.json").read_text())
    assert (metrics["last/a_x"], metrics["last/b_y"]) == (0.5, 0.25)
    assert "last/test_mean_score" not in metrics


def test_interrupt_ends_watching_with_130(tmp_path, monkeypatch):
    make_run(tmp_path / "train_0", [0.1])

    def interrupt(seconds):
        assert seconds == 5
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert run_metrics(monkeypatch, "-i", tmp_path, "--watch", 5, "-k", "test/mean_score") == 130


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "--watch"], "--table cannot be combined with --watch or --wandb-project"),
        (["--watch", "0"], "--watch 0: use more than 0 seconds"),
        (["--wandb-mode", "sometimes"], "invalid choice: 'sometimes'"),
    ],
)
def test_options_that_make_no_sense(tmp_path, monkeypatch, capsys, options, message):
    assert run_metrics(monkeypatch, "-i", tmp_path, *options) == 2
    assert message in capsys.readouterr().err
