"""Several checkpoints on the same episodes."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from toy_policy import GoalPolicy

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.env_runner.paired import differences, evaluate_checkpoints
from diffusion_policy.util.errors import UserError
from tests.env_runner.test_evaluation import CONFIG


def save(path, noise, env="toy_env:make"):
    config = OmegaConf.create(CONFIG)
    config.policy.noise = noise
    config.task.env_runner.env = {"factory": env}
    save_checkpoint(path, OmegaConf.to_yaml(config), {"model": GoalPolicy().state_dict()})
    return path


@pytest.mark.slow
def test_checkpoints_are_compared_on_the_same_episodes(tmp_path, capsys):
    checkpoints = [save(tmp_path / "noisy.ckpt", 5.0), save(tmp_path / "sure.ckpt", 0.0)]
    options = dict(n_episodes=6, start_seed=40, n_videos=0, n_workers=1, device="cpu", trust=True)
    (found,) = evaluate_checkpoints(checkpoints, tmp_path / "eval", **options)
    assert json.loads((tmp_path / "eval/paired.json").read_text()) == [found]
    infos = [
        json.loads((tmp_path / "eval" / name / "eval_info.json").read_text())
        for name in ("noisy", "sure")
    ]
    assert (found["checkpoint"], found["against"], found["n_episodes"]) == ("sure", "noisy", 6)
    for score in ("success_rate", "mean_max_reward"):
        before, after = (info["aggregated"][score] for info in infos)
        low, high = found[f"{score}_ci95"]
        assert found[score] == pytest.approx(after - before)
        assert low <= found[score] <= high
    table = capsys.readouterr().out.splitlines()[-4:-2]
    assert [line.split()[0] for line in table] == ["noisy", "sure"]
    assert f"{found['mean_max_reward']:+.3f} [" in table[1]

    with pytest.raises(UserError, match="noisy holds results already"):
        evaluate_checkpoints(checkpoints, tmp_path / "eval", **options)


def test_a_score_that_an_episode_lacks_is_not_compared():
    start = {"group": "test", "name": "3", "seed": 3}
    episodes = [{**start, "max_reward": reward, "success": None} for reward in (0.25, 0.75)]
    first, other = ({"per_episode": [episode]} for episode in episodes)
    assert differences(first, other) == {
        "n_episodes": 1,
        "mean_max_reward": 0.5,
        "mean_max_reward_ci95": [0.5, 0.5],
    }
    with pytest.raises(UserError, match="no start in common"):
        differences(first, {"per_episode": [{**episodes[0], "name": "4"}]})


def test_what_cannot_be_compared_is_refused(tmp_path):
    here, there = (
        save(tmp_path / "a.ckpt", 0.0),
        save(tmp_path / "b.ckpt", 0.0, "toy_env:make_broken"),
    )
    with pytest.raises(UserError, match=r"b.ckpt plays in toy_env:make_broken and .*a.ckpt in toy"):
        evaluate_checkpoints([here, there], tmp_path / "eval")
    without = OmegaConf.create({**CONFIG, "task": {"name": "toy"}})
    bare = tmp_path / "bare.ckpt"
    save_checkpoint(bare, OmegaConf.to_yaml(without), {"model": GoalPolicy().state_dict()})
    with pytest.raises(UserError, match=r"bare.ckpt plays in None and .*a.ckpt in toy"):
        evaluate_checkpoints([here, bare], tmp_path / "eval")
    with pytest.raises(UserError, match="two checkpoints are called a;"):
        evaluate_checkpoints([here, here], tmp_path / "eval")
