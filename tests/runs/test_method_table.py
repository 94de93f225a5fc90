import pytest

from diffusion_policy.runs.method_table import tabulate_sweeps
from diffusion_policy.util.errors import UserError
from tests.runs.fake_runs import make_run

KEYS = ["test/mean_score"]


def table(capsys, *directories, metrics=("max", "last")):
    tabulate_sweeps(directories, KEYS, metrics)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]


def test_rows_are_methods_columns_tasks_and_cells_means_over_seeds(tmp_path, capsys):
    for seed, scores in enumerate(([0.2, 0.6, 0.3], [0.2, 0.4, 0.3])):
        make_run(tmp_path / f"a/train_{seed}", scores, [f"training.seed={seed}"])
    image = ["name=train_dot_pusht_image", "task.name=pusht_image"]
    make_run(tmp_path / "b/train_0", [0.5], image)
    unet = ["name=train_diffusion_unet_pusht"]
    make_run(tmp_path / "c", [0.7, 0.1], unet)
    assert table(capsys, tmp_path / "a", tmp_path / "b", tmp_path / "c") == [
        ["test/mean_score: max / last", "pusht_keypoints", "pusht_image"],
        ["---", "---:", "---:"],
        # t = 12.706 for two seeds, and s / sqrt(n) = 0.1.
        ["dot", "0.500 ± 1.271 / 0.300 ± 0.000 (2 seeds)", "0.500 / 0.500 (1 seed)"],
        ["diffusion_unet", "0.700 / 0.100 (1 seed)", ""],
    ]


def test_sweeps_of_one_experiment_share_a_cell_and_others_get_a_row_each(tmp_path, capsys):
    make_run(tmp_path / "a/train_0", [0.2], ["training.seed=0", "optimizer.lr=1"])
    make_run(tmp_path / "b/train_0", [0.4], ["training.seed=1", "optimizer.lr=1"])
    make_run(tmp_path / "b/train_1", [0.8], ["optimizer.lr=2"])
    rows = table(capsys, tmp_path / "a", tmp_path / "b", metrics=["max"])[2:]
    assert rows == [
        ["dot, optimizer.lr=1", "0.300 ± 1.271 (2 seeds)"],
        ["dot, optimizer.lr=2", "0.800 (1 seed)"],
    ]


def test_metrics_without_a_loss_to_choose_by_are_none(tmp_path, capsys):
    make_run(tmp_path / "train_0", [0.2, 0.4], val_loss="nan")
    assert table(capsys, tmp_path, metrics=["min_val_loss"])[2][1] == "none (1 seed)"


def test_the_same_run_twice_is_refused(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / name / "train_0", [0.2])
    with pytest.raises(UserError, match=r"a/train_0 and .*b/train_0 have the same settings and se"):
        tabulate_sweeps([tmp_path / "a", tmp_path / "b"], KEYS, ["max"])


def test_a_run_without_config_has_no_place(tmp_path):
    config = make_run(tmp_path / "train_0", [0.2]) / ".hydra" / "config.yaml"
    config.unlink()
    with pytest.raises(UserError, match=r"config\.yaml has no name, so .* leave it out"):
        tabulate_sweeps([tmp_path], KEYS, ["max"])


def test_an_unknown_metric_is_told_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"--metrics best is unknown; choose from max, k_around"):
        tabulate_sweeps([tmp_path], KEYS, ["best"])


def test_a_run_behind_the_others_of_its_experiment_is_told(tmp_path, capsys):
    make_run(tmp_path / "train_0", [0.2, 0.3], ["training.seed=0"])
    make_run(tmp_path / "train_1", [0.2], ["training.seed=1"])
    make_run(tmp_path / "train_2", [0.2], ["optimizer.lr=3"])
    tabulate_sweeps([tmp_path], KEYS, ["last"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}: train_1 (stopped) has 1 of 2 evaluations")
