"""The learning rate that follows the validation loss."""

import pytest
import torch

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.lr_schedule import PlateauSchedule
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from diffusion_policy.workspace.training_config import TrainingConfig
from tests.configs import TINY_BC, compose_config, tiny_overrides
from tests.demos import make_demos
from tests.states import assert_equal_states, comparable_log, final_state


def schedule(**settings) -> tuple[PlateauSchedule, torch.optim.Optimizer]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    settings = {"lr_warmup_steps": 0, "lr_scheduler": "reduce_on_plateau", **settings}
    return PlateauSchedule(optimizer, TrainingConfig(**settings)), optimizer


def test_the_rate_halves_after_more_than_two_losses_that_are_not_better():
    rates, losses = [], [1.0, 0.995, 0.992, 0.991, 0.5, 0.6, 0.6, 0.4999, 0.499]
    plateau, _ = schedule()
    for loss in losses:
        plateau.validated(loss)
        rates += plateau.get_last_lr()
    # 0.991 is the third that is less than 1 % below 1.0; 0.4999 the third after 0.5.
    assert rates == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2]


def test_the_rate_rises_from_zero_first():
    plateau, _ = schedule(lr_warmup_steps=4)
    rates = plateau.get_last_lr()
    for _ in range(6):
        plateau.validated(1.0)  # too early to count
        plateau.step()
        rates += plateau.get_last_lr()
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_a_state_goes_on_as_if_it_had_never_stopped():
    whole, _ = schedule(plateau_patience=0)
    first, optimizer = schedule(plateau_patience=0)
    losses = [1.0, 1.1, 0.5, 0.6, 0.7]
    for loss in losses[:2]:
        whole.validated(loss)
        first.validated(loss)
    again, other = schedule(plateau_patience=0)
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(first.state_dict())
    for loss in losses[2:]:
        whole.validated(loss)
        again.validated(loss)
    assert again.get_last_lr() == whole.get_last_lr() == [0.1]


def overrides(tmp_path) -> list[str]:
    demos = make_demos(tmp_path / "demos.zarr")
    small = tiny_overrides(demos, tmp_path / "cache", TINY_BC)
    return [*small, "training.lr_warmup_steps=0", "training.rollout_every=100"]


@pytest.mark.slow
def test_a_run_that_stopped_before_the_end_of_an_epoch_follows_the_same_rates(
    tmp_path, monkeypatch
):
    # No loss is better by 90 %, so the rate halves at every epoch but the first.
    settings = [*overrides(tmp_path), "training.plateau_patience=0"]
    settings += ["training.plateau_threshold=0.9", "task.env_runner.n_test=1"]

    def train(name: str) -> None:
        workspace = TrainWorkspace(compose_config("train_bc_pusht", *settings), tmp_path / name)
        workspace.run()

    train("whole")
    log, end_epoch = TrainWorkspace._log, TrainWorkspace._end_epoch

    def stops(self, logger, record):
        log(self, logger, record)
        if "val_loss" in record and self.epoch == 1:
            raise KeyboardInterrupt

    def saves_first(self, runner, logger, saver):
        saver.save()  # as before a rollout
        end_epoch(self, runner, logger, saver)

    with monkeypatch.context() as patch:
        patch.setattr(TrainWorkspace, "_log", stops)
        patch.setattr(TrainWorkspace, "_end_epoch", saves_first)
        with pytest.raises(KeyboardInterrupt):
            train("stopped")
    train("stopped")
    assert_equal_states(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))
    records = comparable_log(tmp_path / "whole")
    assert records == comparable_log(tmp_path / "stopped")
    assert sorted({record["lr"] for record in records}) == [5e-4, 1e-3]


def test_it_needs_held_out_episodes(tmp_path):
    cfg = compose_config("train_bc_pusht", *overrides(tmp_path), "task.dataset.val_ratio=0")
    with pytest.raises(UserError, match=r"reduce_on_plateau, which follows .*val_ratio=0\.02"):
        TrainWorkspace(cfg, tmp_path / "run")
