import sys

import pytest
from omegaconf import OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.curves import plot_curves
from diffusion_policy.workspace.loggers import RunLogger


def config(mode: str = "disabled", tensorboard: bool = False):
    return OmegaConf.create(
        {"logging": {"tensorboard": tensorboard, "wandb": {"mode": mode, "project": "test"}}}
    )


RECORDS = [
    {"global_step": step, "train_loss": 1 / (step + 1), "lr": 1e-4, "video": "a.mp4"}
    for step in range(5)
]


def test_json_lines_are_always_written(tmp_path):
    with RunLogger(tmp_path, config()) as logger:
        for record in RECORDS:
            logger.log(record)
    assert read_log(tmp_path / "logs.json.txt") == RECORDS
    assert [path.name for path in tmp_path.iterdir()] == ["logs.json.txt"]


def test_wandb_offline_keeps_a_run_on_disk(tmp_path):
    pytest.importorskip("wandb")
    with RunLogger(tmp_path, config("offline")) as logger:
        for record in RECORDS:
            logger.log(record)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(read_log(tmp_path / "logs.json.txt")) == 5


def test_missing_tensorboard_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard or set it to false"):
        RunLogger(tmp_path, config(tensorboard=True))


@pytest.mark.parametrize("scored", [False, True])
def test_curves_are_drawn_from_any_log(tmp_path, scored):
    with RunLogger(tmp_path, config()) as logger:
        for record in RECORDS:
            logger.log(record)
        if scored:
            score = {"success_rate": 0.5, "success_ci_low": 0.3, "success_ci_high": 0.7}
            score["mean_score"] = 0.8
            logger.log(
                {"global_step": 5, "val_loss": 0.3, **{f"test/{k}": v for k, v in score.items()}}
            )
    plot_curves(tmp_path / "logs.json.txt", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
