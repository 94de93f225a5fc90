"""The line at the end of a run, of logs that may be damaged."""

from __future__ import annotations

import json

import pytest

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.workspace.result import outcome

ROLLOUT = {
    "global_step": 9,
    "test/mean_score": 0.5,
    "test/success_rate": 0.25,
    "test/success_ci_low": 0.1,
    "test/success_ci_high": 0.6,
    "test/sim_max_reward_1": 0.5,
}
FULL = "success rate 25.0% (95 % interval 10.0% to 60.0%), mean max reward 0.500"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, f"{FULL} over 1 episodes after 10 steps"),
        ({"test/success_ci_low": None}, "mean max reward 0.500 over 1 episodes after 10 steps"),
        ({"test/success_rate": "x"}, "mean max reward 0.500 over 1 episodes after 10 steps"),
        ({"test/mean_score": "x"}, "training loss 0.7"),
        ({"test/mean_score": 10**400}, "training loss 0.7"),
        ({"global_step": None}, "training loss 0.7"),
    ],
)
def test_damaged_records_are_left_out(tmp_path, changes, expected):
    damaged = {key: value for key, value in {**ROLLOUT, **changes}.items() if value is not None}
    records = [{"global_step": 0, "train_loss": 0.7}, damaged, {"train_loss": 0.3}]
    (tmp_path / "logs.json.txt").write_text("".join(json.dumps(each) + "\n" for each in records))
    assert outcome(tmp_path) == expected


@pytest.mark.parametrize(
    ("logged", "expected"), [(0.5, "0.5 after 1 steps, in"), (0.4, "0.5, in"), ("x", None)]
)
def test_a_best_loss_that_the_log_has_lost_is_told_without_its_step(tmp_path, logged, expected):
    latest = tmp_path / "checkpoints" / "latest.ckpt"
    save_checkpoint(
        latest, "", {"topk": {"monitor_key": "val_loss", "best": {"epoch=1.ckpt": 0.5}}}
    )
    record = {"global_step": 0, "val_loss": logged}
    (tmp_path / "logs.json.txt").write_text(json.dumps(record) + "\n")
    told = outcome(tmp_path)
    assert told == (
        f"best validation loss {expected} {latest.with_name('epoch=1.ckpt')}"
        if expected
        else "nothing was logged"
    )
