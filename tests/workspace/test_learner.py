"""Steps whose values are looked at now and then, or are not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.policy.dot_policy import DOTPolicy
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos

SGD = ["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "~optimizer.betas"]
SGD += ["~optimizer.eps"]


class TalkativePolicy(DOTPolicy):
    """Returns values beside the loss: a tensor, a number, and one that training alone has."""

    def compute_loss(self, batch):
        loss, _ = super().compute_loss(batch)
        values = {"l1": 2 * loss.detach(), "n_rows": float(len(batch["action"]))}
        return loss, {**values, "noise": 1.0} if self.training else values


@pytest.fixture
def overrides(tmp_path) -> list[str]:
    demos = make_demos(tmp_path / "demos.zarr")
    return [*tiny_overrides(demos, tmp_path / "cache"), "training.rollout_every=100"]


def make(folder: Path, overrides: list[str]) -> TrainWorkspace:
    return TrainWorkspace(compose_config("train_dot_pusht", *overrides), folder)


def numbers(log: Path) -> list[dict]:
    records = read_log(log)
    return [{k: v for k, v in record.items() if not isinstance(v, str)} for record in records]


def spoil(workspace: TrainWorkspace, bad_step: int, where: str) -> None:
    """Make the loss, or the gradient alone, infinite at that step."""
    weight = workspace.model.model.action_head.weight
    weight.register_hook(
        lambda grad: (
            torch.full_like(grad, torch.inf)
            if where != "loss" and workspace.global_step == bad_step
            else grad
        )
    )
    whole_loss = workspace.learner._loss

    def loss(part, batch):
        value, others = whole_loss(part, batch)
        is_bad = where == "loss" and workspace.global_step == bad_step
        return (value * torch.nan if is_bad else value), others

    workspace.learner._loss = loss


@pytest.mark.slow
@pytest.mark.parametrize("where", ["loss", "norm of the gradient"])
@pytest.mark.parametrize("optimizer", [[], SGD])
def test_fused_optimisers_leave_out_a_bad_step_on_the_device(tmp_path, overrides, where, optimizer):
    workspace = make(tmp_path / "run", [*overrides, *optimizer, "training.log_every=3"])
    spoil(workspace, bad_step=1, where=where)
    steps = workspace._rest_of_epoch()
    workspace.train_step(next(steps))
    before = {key: value.clone() for key, value in workspace.model.named_parameters()}
    assert workspace.train_step(next(steps)) is None
    assert all(torch.equal(before[key], value) for key, value in workspace.model.named_parameters())
    with pytest.raises(UserError, match=rf"the {where} is \w+ at step 1 \(step 1 of epoch 0\); no"):
        workspace.train_step(next(steps))


@pytest.mark.slow
@pytest.mark.parametrize("fused", ["true", "false"])
def test_no_weights_after_a_bad_step_are_saved(tmp_path, overrides, fused):
    often = [*overrides, "training.checkpoint_minutes=0", f"optimizer.fused={fused}"]
    workspace = make(tmp_path / "run", [*often, "training.log_every=3"])
    spoil(workspace, bad_step=5, where="norm of the gradient")
    # Every step is saved, so the step itself is the next look, though it is no time to log.
    with pytest.raises(UserError, match=r"the norm of the gradient is inf at step 5 \("):
        workspace.run()
    again = make(tmp_path / "run", often)
    again.load_checkpoint()
    assert again.global_step == 5
    assert all(value.isfinite().all() for value in again.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_records_hold_means_over_the_interval(tmp_path, overrides, accumulate):
    common = [*overrides, f"training.gradient_accumulate_every={accumulate}"]
    common += ["training.max_train_steps=3", "dataloader.batch_size=8"]
    every = make(tmp_path / "every", common)
    every.run()
    second = make(tmp_path / "second", [*common, "training.log_every=2"])
    second.run()
    one, two = (
        numbers(folder / "logs.json.txt") for folder in (tmp_path / "every", tmp_path / "second")
    )
    assert [record["global_step"] for record in two] == [1, 2, 4, 5, 7, 8]
    for i in (0, 2, 4):
        step = two[i]["global_step"]
        assert two[i]["train_loss"] == (one[step - 1]["train_loss"] + one[step]["train_loss"]) / 2
        assert two[i + 1] == one[step + 1]  # epochs end alike
    for a, b in zip(every.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_what_compute_loss_returns_is_averaged_and_logged(tmp_path, overrides):
    cfg = compose_config("train_dot_pusht", *overrides, "training.gradient_accumulate_every=2")
    OmegaConf.update(cfg, "policy._target_", f"{__name__}.TalkativePolicy")
    TrainWorkspace(cfg, tmp_path / "run").run()
    records = read_log(tmp_path / "run/logs.json.txt")
    for record in records:
        assert record["l1"] == pytest.approx(2 * record["train_loss"])
        assert record["noise"] == 1
    last = records[-1]
    assert last["val_l1"] == pytest.approx(2 * last["val_loss"])
    assert "val_noise" not in last
    assert records[0]["n_rows"] == 16
    assert "n_rows" in last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda loss: (loss, {"lr": 1}), "compute_loss returns 'lr'; use a name that is none of"),
        (
            lambda loss: (loss, {"l1": torch.ones(3)}),
            r"returns 'l1' of shape \[3\]; return its mean",
        ),
        (lambda loss: loss, "DOTPolicy returns a Tensor; return the loss and a dict of values"),
        (lambda loss: (loss[None], {}), r"returns a loss of shape \[1\]; return its mean"),
        (lambda loss: (loss.detach(), {}), "returns a loss that trains no parameter"),
    ],
)
def test_what_a_policy_must_not_return_is_told(tmp_path, overrides, answer, message):
    workspace = make(tmp_path / "run", overrides)
    compute_loss = workspace.model.compute_loss
    workspace.model.compute_loss = lambda batch: answer(compute_loss(batch)[0])
    with pytest.raises(UserError, match=message):
        workspace.train_step(next(workspace._rest_of_epoch()))
