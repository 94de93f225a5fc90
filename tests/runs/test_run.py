import json
from contextlib import nullcontext

import pytest

from diffusion_policy.runs.run import Run, State, find_runs
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import OutputLock
from tests.runs.fake_runs import N_EPOCHS, lines, make_run

SCORE = "test/mean_score"


def names(*directories, **options):
    return [run.name for run in find_runs(directories, [], **options)]


def read(directory, *keys) -> Run:
    run = Run(directory, directory.name, keys)
    run.refresh()
    return run


def test_runs_come_in_natural_order_without_the_metrics_folder(tmp_path):
    for name in ("train_10", "train_2", "metrics"):
        make_run(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "multirun.yaml").touch()
    assert names(tmp_path) == ["train_2", "train_10"]


def test_a_run_without_a_log_is_found_by_its_config(tmp_path):
    (make_run(tmp_path / "train_0") / "logs.json.txt").unlink()
    assert names(tmp_path) == ["train_0"]


def test_depth_decides_how_far_to_look(tmp_path):
    make_run(tmp_path / "day" / "sweep" / "train_0")
    make_run(tmp_path / "day" / "other" / "train_0")
    assert names(tmp_path / "day", may_be_empty=True) == []
    assert names(tmp_path / "day", depth=2) == ["other/train_0", "sweep/train_0"]


def test_names_tell_the_runs_of_several_sweeps_apart(tmp_path):
    first, second = make_run(tmp_path / "a" / "train_0"), make_run(tmp_path / "b" / "train_0")
    assert names(tmp_path / "a", tmp_path / "b", first) == ["a/train_0", "b/train_0"]
    assert names(second) == ["train_0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "is not a directory; give"), ("", r"holds no run of train\.py")],
)
def test_a_directory_without_runs_is_an_error(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        find_runs([tmp_path / name], [])


def test_settings_are_those_of_the_config_as_it_is_now(tmp_path):
    run = read(make_run(tmp_path / "train_0", settings=["optimizer.lr=3e-4"]))
    assert (run.settings["optimizer.lr"], run.seed) == (3e-4, 42)
    (run.directory / ".hydra" / "config.yaml").write_text("training: {num_epochs: 9}\n")
    run.refresh()
    assert run.settings == {"training.num_epochs": 9}
    assert run.seed is None


def test_a_config_of_an_earlier_version_is_read_in_todays_names(tmp_path):
    old = "task.dataset._target_=diffusion_policy.dataset.replay_dataset.ReplayDataset"
    run = read(make_run(tmp_path / "train_0", settings=[old]))
    assert run.settings["task.dataset._target_"].endswith(".WindowDataset")


def test_evaluations_are_the_records_with_a_score(tmp_path):
    run = read(make_run(tmp_path / "train_0", [0.5, 0.25]), SCORE)
    found = run.evaluations(SCORE)
    assert found.steps.tolist() == [1, 3]
    assert found.values.tolist() == [0.5, 0.25]
    assert found.train_loss.tolist() == [1, 0.5]
    assert found.val_loss.tolist() == [2, 1]
    assert run.n_steps == 4


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
    with OutputLock(directory) if locked else nullcontext():
        assert read(directory).state is expected


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        (["training.num_epochs=2"], 4, State.FINISHED),
        (["training.num_epochs=3"], 4, State.STOPPED),
        (["training.max_steps=4"], 4, State.FINISHED),
        (["training.max_steps=5"], 4, State.STOPPED),
    ],
)
def test_a_run_without_a_simulator_ends_with_its_last_epoch(tmp_path, settings, steps, expected):
    directory = make_run(tmp_path / "train_0", settings=settings)
    log = [{"global_step": i, "epoch": i // 2, "train_loss": 0.1} for i in range(steps)]
    (directory / "logs.json.txt").write_text(lines(log))
    assert read(directory).state is State.STOPPED  # the epoch has not ended
    log[-1] |= {"val_loss": 0.2, "train_action_mse_error": 0.3}
    (directory / "logs.json.txt").write_text(lines(log))
    assert read(directory).state is expected


def test_a_last_epoch_without_its_rollout_is_not_the_end(tmp_path):
    directory = make_run(tmp_path / "train_0")
    step = {"global_step": 9, "epoch": N_EPOCHS - 1, "train_loss": 0.1}
    (directory / "logs.json.txt").write_text(json.dumps(step) + "\n")
    assert read(directory).state is State.STOPPED
