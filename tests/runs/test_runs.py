import json

import pytest

from diffusion_policy.runs.history import History
from diffusion_policy.runs.runs import State, find_runs, renamed
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import OutputLock
from tests.runs.fake_runs import N_EPOCHS, make_run


def names(runs):
    return [run.name for run in runs]


def test_runs_come_in_natural_order_without_what_was_made_from_them(tmp_path):
    for name in ("train_10", "train_2", "metrics"):
        make_run(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "multirun.yaml").touch()
    assert names(find_runs(tmp_path)) == ["train_2", "train_10"]


def test_a_run_that_has_only_begun_is_one(tmp_path):
    (make_run(tmp_path / "train_0") / "logs.json.txt").unlink()
    assert names(find_runs(tmp_path)) == ["train_0"]


def test_depth_decides_how_far_to_look(tmp_path):
    make_run(tmp_path / "day" / "sweep" / "train_0")
    assert find_runs(tmp_path / "day") == []
    assert names(find_runs(tmp_path / "day", depth=2)) == ["sweep/train_0"]


def test_names_tell_the_runs_of_several_sweeps(tmp_path):
    first, second = make_run(tmp_path / "a" / "train_0"), make_run(tmp_path / "b" / "train_0")
    runs = [*find_runs(tmp_path / "a"), *find_runs(tmp_path / "b"), *find_runs(first)]
    assert names(renamed(runs)) == ["a/train_0", "b/train_0"]
    assert names(renamed(find_runs(second))) == ["train_0"]


def test_settings_are_those_of_the_config_as_it_is_now(tmp_path):
    run = make_run(tmp_path / "train_0", settings=["optimizer.lr=3e-4"])
    assert find_runs(tmp_path)[0].settings["optimizer.lr"] == 3e-4
    (run / ".hydra" / "config.yaml").write_text("training: {num_epochs: 9}\n")
    assert find_runs(tmp_path)[0].settings == {"training.num_epochs": 9}


@pytest.mark.parametrize(
    ("n_epochs", "locked", "expected"),
    [
        (N_EPOCHS, False, State.FINISHED),
        (N_EPOCHS, True, State.RUNNING),
        (N_EPOCHS - 1, False, State.STOPPED),
        (0, False, State.STOPPED),
        (0, True, State.RUNNING),
    ],
)
def test_state(tmp_path, n_epochs, locked, expected):
    directory = make_run(tmp_path / "train_0", [0.5] * n_epochs)
    lock = OutputLock(directory)
    if locked:
        lock.__enter__()
    assert History.read(find_runs(tmp_path)[0]).state is expected
    if locked:
        lock.__exit__()


def test_a_last_epoch_without_its_rollout_is_not_the_end(tmp_path):
    directory = make_run(tmp_path / "train_0")
    step = {"global_step": 9, "epoch": N_EPOCHS - 1, "train_loss": 0.1}
    (directory / "logs.json.txt").write_text(json.dumps(step) + "\n")
    assert History.read(find_runs(tmp_path)[0]).state is State.STOPPED


def test_a_missing_directory_is_told(tmp_path):
    with pytest.raises(UserError, match=r"none is not a directory; give"):
        find_runs(tmp_path / "none")
