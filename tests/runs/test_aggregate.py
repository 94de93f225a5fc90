import itertools
import json
import shutil
import time

import pytest

from diffusion_policy.runs import aggregate
from diffusion_policy.runs.aggregate import aggregate_sweeps
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import OutputLock
from tests.runs.fake_runs import GOLDEN, N_EPOCHS, lines, make_run, records

KEYS = ["test/mean_score"]
MAX = "max/test_mean_score"


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two finished seeds."""
    for i, scores in enumerate(([0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6])):
        make_run(tmp_path / f"train_{i}", scores, [f"training.seed={i}"])
    return tmp_path


def written(sweep):
    return json.loads((sweep / "metrics" / "metrics.json").read_text())


@pytest.mark.slow
def test_golden_sweep(tmp_path, capsys):
    sweep = shutil.copytree(GOLDEN, tmp_path / "sweep")
    aggregate_sweeps([sweep], ["test/mean_score", "train/mean_score"])
    expected = json.loads((GOLDEN / "expected_metrics.json").read_text())
    assert written(sweep) == pytest.approx(expected, rel=1e-12)
    log = read_log(sweep / "metrics" / "logs.json.txt")
    assert [record["global_step"] for record in log] == list(range(4, 300, 10))
    assert written(sweep).items() <= log[-1].items()
    assert (sweep / "metrics" / "curves.png").read_bytes().startswith(b"\x89PNG")
    out, err = capsys.readouterr()
    assert "k_min_val_loss                    0.9157            0.9746\n" in out
    assert err == ""


@pytest.mark.slow
def test_the_log_is_that_of_the_runs_that_are_there(sweep):
    for _ in range(2):
        aggregate_sweeps([sweep], KEYS)
    whole = read_log(sweep / "metrics" / "logs.json.txt")
    assert whole[-1][MAX] == pytest.approx(0.5)
    shutil.rmtree(sweep / "train_1")
    aggregate_sweeps([sweep], KEYS)
    rest = read_log(sweep / "metrics" / "logs.json.txt")
    assert rest[-1][MAX] == pytest.approx(0.4)


def test_excluded_runs_do_not_count(sweep):
    aggregate_sweeps([sweep], KEYS, exclude=["train_0"])
    assert written(sweep)[MAX] == 0.6
    with pytest.raises(UserError, match=r"--exclude train_7: no such run .* train_0, train_1$"):
        aggregate_sweeps([sweep], KEYS, exclude=["train_7"])


def test_runs_that_count_less_than_they_should_are_told(sweep, capsys):
    make_run(sweep / "train_2", [0.8], ["training.seed=2"])
    make_run(sweep / "train_3", settings=["training.seed=3"])
    with OutputLock(make_run(sweep / "train_4", [0.9, 0.9], ["training.seed=4"])):
        aggregate_sweeps([sweep], KEYS)
    assert capsys.readouterr().err.splitlines() == [
        f"{sweep}: train_2 (stopped) has 1 of 4 evaluations by test/mean_score, so only 1 of each "
        "run count; leave it out with --exclude train_2",
        f"{sweep}: train_3 (stopped) has no test/mean_score and is left out",
    ]
    assert written(sweep)[MAX] == pytest.approx((0.1 + 0.3 + 0.8 + 0.9) / 4)


def test_experiments_are_not_averaged(sweep):
    make_run(sweep / "train_2", [0.5], ["optimizer.lr=3"])
    with pytest.raises(UserError, match=r"differ in optimizer\.lr, not only in their seeds"):
        aggregate_sweeps([sweep], KEYS)
    assert not (sweep / "metrics").exists()


def test_repeats_of_a_seed_are_not_averaged_as_seeds(sweep):
    make_run(sweep / "train_2", settings=["training.seed=1"])  # a start that failed is no repeat
    aggregate_sweeps([sweep], KEYS)
    make_run(sweep / "train_3", [0.5], ["training.seed=1"])
    with pytest.raises(UserError, match=r"train_1 and .*train_3 have the same settings and seed"):
        aggregate_sweeps([sweep], KEYS)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            [0.5],
            r"logged test/x; choose with -k from test/mean_score, test/success_rate, val_loss$",
        ),
        ([], r"no run has logged test/x; they have no evaluation yet"),
    ],
)
def test_an_unknown_score_is_told_with_the_known_ones(tmp_path, scores, message):
    make_run(tmp_path / "train_0", scores)
    with pytest.raises(UserError, match=message):
        aggregate_sweeps([tmp_path], ["test/x"])


def test_a_directory_without_runs_is_told_and_left_alone(tmp_path):
    with pytest.raises(UserError, match=r"holds no run of train\.py"):
        aggregate_sweeps([tmp_path], KEYS)
    assert list(tmp_path.iterdir()) == []


def watch(monkeypatch, sweep, *events):
    """Watch a sweep; before each further look the next event happens, after the last one Ctrl-C."""
    happening = iter(events)

    def sleep(_seconds):
        event = next(happening, None)
        if event is None:
            raise KeyboardInterrupt
        event()

    monkeypatch.setattr(time, "sleep", sleep)
    aggregate_sweeps([sweep], KEYS, watch_s=1.0)


@pytest.mark.slow
def test_watching_follows_runs_that_come_grow_and_are_resumed(tmp_path, monkeypatch):
    first, second = tmp_path / "train_0", tmp_path / "train_1"

    seen = []

    def write(run, *scores):
        if (tmp_path / "metrics/metrics.json").exists():
            seen.append(written(tmp_path)[MAX])
        (run / "logs.json.txt").write_text(lines(records(scores)))

    with pytest.raises(KeyboardInterrupt):
        watch(
            monkeypatch,
            tmp_path,
            lambda: make_run(first),
            lambda: write(first, 0.1),
            lambda: make_run(second, [0.3], ["training.seed=1"]),
            lambda: write(first, 0.1, 0.5),  # the other one is behind: still one counts
            lambda: write(second, 0.3, 0.7),
            lambda: write(second, 0.2),  # resumed from before, with another outcome
        )
    seen.append(written(tmp_path)[MAX])
    assert seen == pytest.approx([0.2, 0.2, 0.6, 0.15])


@pytest.mark.slow
def test_watching_ends_a_while_after_all_have_finished(sweep, monkeypatch):
    """The command must wait, because the next run of a sweep may just be starting."""
    seconds = itertools.count(step=aggregate.GRACE_S / 4)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    late = sweep / "train_2"
    watch(
        monkeypatch,
        sweep,
        lambda: make_run(late, [0.5], ["training.seed=2"]),  # unfinished
        lambda: (late / "logs.json.txt").write_text(lines(records([0.8] * N_EPOCHS))),
        *[lambda: None] * 4,
    )
    assert written(sweep)[MAX] == pytest.approx((0.4 + 0.6 + 0.8) / 3)


def test_a_second_watcher_is_refused(sweep):
    with OutputLock(sweep / "metrics"), pytest.raises(UserError, match="in use by process"):
        aggregate_sweeps([sweep], KEYS)


@pytest.mark.slow
def test_wandb_offline_keeps_the_metrics_on_disk(sweep):
    pytest.importorskip("wandb")
    aggregate_sweeps([sweep], KEYS, wandb=("test", "offline"))
    assert list(sweep.glob("metrics/wandb/offline-run-*/*.wandb"))
