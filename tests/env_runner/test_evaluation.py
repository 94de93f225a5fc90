import html
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from av.error import InvalidDataError
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from toy_env import SHAPE_META
from toy_policy import GoalPolicy

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.env_runner.evaluation import (
    EVALUATIONS,
    aggregate,
    evaluate_checkpoint,
    headline,
)
from diffusion_policy.env_runner.outcomes import Outcomes
from diffusion_policy.env_runner.report import (
    FRAMES_PER_EPISODE,
    contact_sheet,
    max_reward_histogram,
    write_report,
)
from diffusion_policy.runs.episodes import read_episodes, write_episodes
from diffusion_policy.scripts import export_policy
from diffusion_policy.spec.start import Start
from diffusion_policy.util.errors import UserError, user_message
from diffusion_policy.util.output_dir import OutputLock
from tests.configs import TINY_DOT, compose_config

ROOT = Path(__file__).parents[2]
CONFIG = {
    "name": "walk_to_<goal>",
    "policy": {"_target_": "toy_policy.GoalPolicy", "noise": 2.0},
    "task": {
        "name": "walking",
        "shape_meta": SHAPE_META,
        "env_runner": {
            "_target_": "diffusion_policy.env_runner.env_runner.EnvRunner",
            "env": {"factory": "toy_env:make", "kwargs": {"frame_shape": [64, 64]}},
            "shape_meta": "${task.shape_meta}",
            "n_train": 6,
            "n_test": 50,
            "max_steps": 6,
            "output_dir": None,
        },
    },
}


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path / "latest.ckpt")


def save(path, **runner_options):
    """A checkpoint of the toy, with other settings of its runner."""
    config = OmegaConf.create(CONFIG)
    config.task.env_runner.update(runner_options)
    save_checkpoint(path, OmegaConf.to_yaml(config), {"model": GoalPolicy().state_dict()})
    return path


def evaluate(checkpoint, output_dir, **options):
    defaults = dict(n_episodes=8, start_seed=40, n_videos=1, n_workers=1, device="cpu", trust=True)
    return evaluate_checkpoint(checkpoint, output_dir, **{**defaults, **options})


@pytest.mark.slow
def test_writes_everything_down(checkpoint, tmp_path, capsys):
    info = evaluate(checkpoint, tmp_path / "eval")
    assert json.loads((tmp_path / "eval" / "eval_info.json").read_text()) == info
    assert info["checkpoint"] == str(checkpoint)
    assert info["config_name"] == "walk_to_<goal>"
    assert info["seed_range"] == [40, 47]
    assert info["versions"]["torch"]
    assert info["command"].startswith("python ")
    assert info["commit"]
    assert "cores" in info["machine"]

    episodes = info["per_episode"]
    assert [(e["episode_ix"], e["seed"]) for e in episodes] == [(i, 40 + i) for i in range(8)]
    # The policy is good and noisy: both outcomes occur, and they agree with the lengths.
    assert {e["success"] for e in episodes} == {True, False}
    assert all(e["length"] == 6 for e in episodes if not e["success"])
    score = info["aggregated"]
    assert score["n_episodes"] == 8
    assert score["success_rate"] == np.mean([e["success"] for e in episodes])
    assert list(score["failures"]) == ["still improving", "stopped improving"]
    assert sum(score["failures"].values()) == sum(not e["success"] for e in episodes)
    assert score["mean_max_reward"] == pytest.approx(np.mean([e["max_reward"] for e in episodes]))

    videos = [e["video"] for e in episodes if e["video"]]
    recorded = [e for e in episodes if e["video"]]
    assert [e["success"] for e in recorded].count(True) == 1
    assert len(videos) == 2
    for video, episode in zip(videos, recorded, strict=True):
        outcome = "success" if episode["success"] else "failure"
        assert video == f"media/eval/test_{episode['seed']}_{outcome}.mp4"
        assert (tmp_path / "eval" / video).is_file()
    said = capsys.readouterr()
    assert not said.err  # progress bars are for terminals
    last_line = said.out.splitlines()[-1]
    assert last_line == f"{headline(score)}; see {tmp_path / 'eval' / 'report.html'}"


@pytest.mark.slow
def test_page_needs_no_other_file(checkpoint, tmp_path):
    info = evaluate(checkpoint, tmp_path / "eval")
    page = (tmp_path / "eval" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert page.count('src="data:video/mp4;base64,') == 2
    assert page.count("src=") == 4
    assert "walk_to_&lt;goal&gt;" in page
    assert f"{100 * info['aggregated']['success_rate']:.1f} %" in page


@pytest.mark.slow
def test_the_page_tells_where_the_score_comes_from(checkpoint, tmp_path):
    overrides = ["policy.noise=1.5"]
    info = evaluate(checkpoint, tmp_path / "eval", n_videos=0, overrides=overrides)
    page = (tmp_path / "eval" / "report.html").read_text().replace("<wbr>", "")
    told = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert told["task"] == info["task"] == "walking"
    assert told["device"] == "cpu, matrix products in fp32"
    assert told["changed settings"] == "policy.noise=1.5"
    for key in ("command", "commit", "machine"):
        assert told[key] == html.escape(info[key]).replace("&#x27;", "&#39;")
    assert info["versions"]["torch"] in told["versions"]


@pytest.mark.slow
def test_failures_and_rewards_are_read_as_the_task_declares(tmp_path):
    outcomes = {"reward_range": [0, 4], "failures": {"near miss": {"at_least": 0.5}, "far": {}}}
    checkpoint = save(tmp_path / "latest.ckpt", outcomes=outcomes)
    info = evaluate(checkpoint, tmp_path / "eval", n_videos=0)
    assert info["outcomes"] == outcomes
    score, failures = info["aggregated"], [e for e in info["per_episode"] if not e["success"]]
    assert score["failures"]["near miss"] == sum(e["max_reward"] >= 0.5 for e in failures)
    assert len(score["near_misses"]) == score["failures"]["near miss"] > 0
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "<td>max reward of 0.5 or more</td>" in page
    with pytest.raises(InstantiationException, match="write conditions by kind"):
        evaluate(save(tmp_path / "b.ckpt", outcomes={"failures": 1}), tmp_path / "b")


@pytest.mark.parametrize(
    ("rewards", "reward_range", "ends"),
    [
        ([0.2, 0.4], (0, 1), (0, 1)),
        ([0.2, 1.5], (0, 1), (0, 1.5)),
        ([-900.0, -300.0], None, (-900, -300)),
        ([0.0, 7000.0], None, (0, 7000)),
        ([5.0], None, (4.5, 5.5)),
    ],
)
def test_the_histogram_shows_what_there_is(rewards, reward_range, ends):
    episodes = [{"max_reward": reward, "success": None} for reward in rewards]
    axes = max_reward_histogram(episodes, reward_range).axes[0]
    low = min(bar.get_x() for bar in axes.patches)
    high = max(bar.get_x() + bar.get_width() for bar in axes.patches)
    assert (low, high) == pytest.approx(ends)
    assert sum(bar.get_height() for bar in axes.patches) == len(rewards)


@pytest.mark.slow
def test_large_videos_are_linked(checkpoint, tmp_path, monkeypatch):
    info = evaluate(checkpoint, tmp_path / "eval")
    monkeypatch.setattr("diffusion_policy.util.html_page.MAX_EMBEDDED_VIDEO", 10)
    page = write_report(info, tmp_path / "eval").read_text()
    videos = [episode["video"] for episode in info["per_episode"] if episode["video"]]
    assert all(f'src="{video}"' in page for video in videos)
    assert "video/mp4" not in page


@pytest.mark.slow
def test_repeats_itself(checkpoint, tmp_path):
    first = evaluate(checkpoint, tmp_path / "a")
    second = evaluate(checkpoint, tmp_path / "b", n_workers=2)
    assert first["per_episode"] == second["per_episode"]


@pytest.mark.slow
def test_an_evaluation_survives_videos_that_cannot_be_written(checkpoint, tmp_path, capfd):
    expected = evaluate(checkpoint, tmp_path / "whole")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "media").touch()  # in the way of the folder
    info = evaluate(checkpoint, tmp_path / "eval")
    assert info["aggregated"] == expected["aggregated"]
    assert all(episode["video"] is None for episode in info["per_episode"])
    assert "No videos were recorded" in (tmp_path / "eval" / "report.html").read_text()
    assert capfd.readouterr().err.count(f"warning: no video {tmp_path}/eval/media/eval/test_4") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        UserError("seed 4: the environment gives no picture"),
        InvalidDataError(1, "no video", "a.mp4"),
    ],
)
def test_the_numbers_survive_what_keeps_videos_and_report_away(
    checkpoint, tmp_path, monkeypatch, error
):
    def fail(*_):
        raise error

    monkeypatch.setattr("diffusion_policy.env_runner.evaluation.write_report", fail)
    with pytest.raises(UserError, match=r"cannot make videos and report .*; the numbers are kept"):
        evaluate(checkpoint, tmp_path / "eval", n_videos=0)
    assert json.loads((tmp_path / "eval" / "eval_info.json").read_text())["per_episode"]


@pytest.mark.slow
def test_low_precision_rounds_actions_and_is_told(checkpoint, tmp_path):
    full = evaluate(checkpoint, tmp_path / "fp32", n_videos=0)
    low = evaluate(checkpoint, tmp_path / "bf16", n_videos=0, precision="bf16")
    assert (full["precision"], low["precision"]) == ("fp32", "bf16")
    sums = [np.array([e["sum_reward"] for e in info["per_episode"]]) for info in (full, low)]
    assert not np.array_equal(*sums)
    np.testing.assert_allclose(*sums, rtol=0.1)


@pytest.mark.slow
def test_earlier_results_are_kept_unless_told_otherwise(checkpoint, tmp_path):
    evaluate(checkpoint, tmp_path / "eval")
    before = contents(tmp_path / "eval")
    with pytest.raises(UserError, match=r"eval_info\.json exists already"):
        evaluate(checkpoint, tmp_path / "eval")
    assert contents(tmp_path / "eval") == before

    info = evaluate(checkpoint, tmp_path / "eval", overwrite=True, n_episodes=1)
    recorded = [str(path.name) for path in (tmp_path / "eval" / "media" / "eval").iterdir()]
    assert recorded == [Path(info["per_episode"][0]["video"]).name]
    evaluate(checkpoint, tmp_path / "eval", overwrite=True, n_videos=0)
    assert not (tmp_path / "eval" / "contact_sheet.png").exists()


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_plays_given_starts(tmp_path):
    near = {"name": "near", "options": {"state": [5, 5, 5.2, 5]}}
    far = {"name": "far", "options": {"state": [0, 0, 10, 10]}}
    groups = {"corners": {"starts": [near, far], "n_vis": 2}, "fresh": {"n": 3}}
    checkpoint = save(tmp_path / "latest.ckpt", groups=groups)
    options = dict(n_episodes=None, start_seed=None, overrides=["policy.noise=0.0"])
    info = evaluate(checkpoint, tmp_path / "eval", starts="corners", **options)
    assert [(e["group"], e["name"], e["seed"], e["success"]) for e in info["per_episode"]] == [
        ("corners", "near", 0, True),
        ("corners", "far", 1, False),
    ]
    assert (info["starts"], info["seed_range"]) == ("corners", [0, 1])
    assert [episode["video"] for episode in info["per_episode"]] == [
        "media/eval/corners_near_success.mp4",
        "media/eval/corners_far_failure.mp4",
    ]
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "starts of corners" in page
    assert "corners near: " in page
    figure = contact_sheet(info["per_episode"], tmp_path / "eval")
    assert figure.axes[0].texts[0].get_text() == "corners near"

    (tmp_path / "corners.yaml").write_text(json.dumps([near, far]))
    again = evaluate(
        checkpoint, tmp_path / "b", starts=str(tmp_path / "corners.yaml"), n_episodes=1
    )
    assert [(e["name"], e["seed"]) for e in again["per_episode"]] == [("near", 40)]

    fresh = evaluate(checkpoint, tmp_path / "fresh", n_episodes=2)
    assert [(e["group"], e["name"]) for e in fresh["per_episode"]] == [
        ("test", "40"),
        ("test", "41"),
    ]
    assert fresh["starts"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": "nowhere"}, "starts 'nowhere' are unknown"),
        ({"overrides": ["+task.env_runner.groups={}"]}, "use --starts instead"),
        ({"n_episodes": 0}, "--n-episodes is 0; use at least 1"),
        ({"start_seed": -1}, "--start-seed is -1; use at least 0"),
        (
            {"start_seed": 2**32 - 7},
            f"the last seed would be {2**32}, but seeds end at {2**32 - 1}",
        ),
        ({"n_videos": -1}, "--n-videos is -1; use at least 0"),
        ({"n_workers": 0}, "--n-workers is 0; use at least 1"),
        (
            {"overrides": ["task.env_runner.n_test=9"]},
            "override 'task.env_runner.n_test=9' changes nothing here; use --n-episodes instead",
        ),
        ({"overrides": ["task.env_runner.test_start_seed=9"]}, "use --start-seed instead"),
        ({"overrides": ["task.env_runner.n_train_vis=9"]}, "use --n-videos instead"),
        ({"overrides": ["+task.env_runner.n_test=9"]}, "use --n-episodes instead"),
        ({"device": "toaster"}, "device 'toaster' cannot be used"),
        ({"checkpoint": Path("nowhere.ckpt")}, "no checkpoint at nowhere.ckpt"),
        ({"trust": False}, "policy._target_ is 'toy_policy.GoalPolicy'"),
    ],
)
def test_a_mistake_leaves_earlier_results_alone(checkpoint, tmp_path, options, message):
    evaluate(checkpoint, tmp_path / "eval", n_episodes=1)
    before = contents(tmp_path / "eval")
    options = {"checkpoint": checkpoint, **options}
    with pytest.raises(UserError) as caught:
        evaluate(output_dir=tmp_path / "eval", overwrite=True, **options)
    assert message in str(caught.value)
    # The lock names the process that took it, and its file stays.
    assert contents(tmp_path / "eval") == before


@pytest.mark.slow
def test_an_unbuildable_environment_leaves_earlier_results_alone(checkpoint, tmp_path):
    evaluate(checkpoint, tmp_path / "eval", n_episodes=1)
    before = contents(tmp_path / "eval")
    other = save(tmp_path / "other.ckpt", env={"id": "diffusion_policy/Nowhere-v0"})
    with pytest.raises(InstantiationException, match="Nowhere-v0"):
        evaluate(other, tmp_path / "eval", overwrite=True)
    assert contents(tmp_path / "eval") == before


def test_a_folder_in_use_is_refused(checkpoint, tmp_path):
    with (
        OutputLock(tmp_path / "eval"),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}"),
    ):
        evaluate(checkpoint, tmp_path / "eval")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"factory": "os:mkdir", "kwargs": {"path": "made"}},
            r"task\.env_runner\.env is .*'os:mkdir'",
        ),
        ({"id": "Pendulum-v1"}, r"env\.id is 'Pendulum-v1', no environment"),
        (
            {"id": "diffusion_policy/PushT-v0", "kwargs": {"obs": {"_target_": "os.mkdir"}}},
            r"task\.env_runner\.env\.kwargs\.obs\._target_ is 'os\.mkdir'",
        ),
    ],
)
def test_a_checkpoint_cannot_bring_its_own_environment(tmp_path, monkeypatch, env, message):
    monkeypatch.chdir(tmp_path)
    # A policy of the package, so that the environment is what is refused.
    cfg = compose_config("train_dot_pusht", *TINY_DOT)
    state = hydra.utils.instantiate(cfg.policy).state_dict()
    cfg.task.env_runner.env = env
    save_checkpoint(tmp_path / "a.ckpt", OmegaConf.to_yaml(cfg, resolve=True), {"model": state})
    with pytest.raises(UserError, match=f"{message}.*--trust-checkpoint"):
        evaluate(tmp_path / "a.ckpt", tmp_path / "eval", trust=False)
    assert not (tmp_path / "made").exists()


def test_a_task_without_a_simulator_cannot_be_evaluated(tmp_path):
    config = OmegaConf.create(CONFIG)
    config.task.env_runner = None
    path = tmp_path / "latest.ckpt"
    save_checkpoint(path, OmegaConf.to_yaml(config), {"model": GoalPolicy().state_dict()})
    with pytest.raises(UserError, match=r"latest\.ckpt has no env_runner, so nothing can play it"):
        evaluate(path, tmp_path / "eval")


def test_a_folder_that_cannot_be_is_a_user_error(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another place"):
        evaluate(checkpoint, tmp_path / "file" / "eval")


@pytest.mark.slow
def test_without_videos(checkpoint, tmp_path):
    evaluate(checkpoint, tmp_path / "eval", n_videos=0)
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {
        ".lock",
        "eval_info.json",
        "report.html",
    }


@pytest.mark.slow
def test_an_environment_that_does_not_tell_success(checkpoint, tmp_path, capsys):
    env = OmegaConf.merge(CONFIG["task"]["env_runner"]["env"], {"kwargs": {"silent_from": 0}})
    info = evaluate(save(tmp_path / "a.ckpt", env=env), tmp_path / "eval")
    assert json.loads((tmp_path / "eval" / "eval_info.json").read_text()) == info
    score = info["aggregated"]
    assert (score["success_rate"], score["success_ci95"]) == (None, None)
    assert sum(score["failures"].values()) == len(score["near_misses"]) == 0
    assert [e["video"] for e in info["per_episode"] if e["video"]] == [
        "media/eval/test_40_ended.mp4"
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith(f"mean max reward {score['mean_max_reward']:.3f} over 8 episodes")
    assert sum("no success rate" in line for line in said) == 1
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "does not tell success" in page
    assert "Failures" not in page
    write_episodes(tmp_path / "episodes.csv.gz", info["per_episode"])
    assert read_episodes(tmp_path / "episodes.csv.gz") == info["per_episode"]


def test_a_rounded_reward_is_no_success():
    def episode(seed, max_reward, success):
        start = Start.of_seed("test", seed)
        return Episode(seed, start, None, 100.0, max_reward, 200, success, 300)

    score = aggregate(
        [
            episode(0, 1.0, True),
            episode(1, 0.998, False),
            episode(2, 0.95, False),
            episode(3, 0.949, False),
        ],
        Outcomes.parse({"failures": {"near miss": {"at_least": 0.95}}}),
    )
    assert score["success_rate"] == 0.25
    assert score["success_ci95"] == pytest.approx([0.0456, 0.6994], abs=1e-4)
    assert [miss["seed"] for miss in score["near_misses"]] == [1, 2]
    low, high = score["mean_max_reward_ci95"]
    assert 0.949 <= low < score["mean_max_reward"] < high <= 1
    assert (score["mean_sum_reward"], score["mean_length"]) == (100, 300)


@pytest.mark.slow
def test_contact_sheet_spans_the_episode(checkpoint, tmp_path):
    info = evaluate(checkpoint, tmp_path / "eval", n_videos=2, n_episodes=16)
    recorded = [episode for episode in info["per_episode"] if episode["video"]]
    assert len(recorded) == 4
    figure = contact_sheet(recorded, tmp_path / "eval")
    assert len(figure.axes) == 4 * (FRAMES_PER_EPISODE + 1)
    for row, episode in enumerate(recorded):
        axes = figure.axes[row * 7 + 1 : row * 7 + 7]
        steps = [int(ax.get_title().removeprefix("step ")) for ax in axes]
        assert (steps[0], steps[-1]) == (0, episode["length"])
        # The toy's frames get brighter by the step.
        assert [ax.images[0].get_array().mean() for ax in axes] == pytest.approx(
            [10 * step for step in steps], abs=3
        )


@pytest.mark.slow
def test_a_short_episode_shows_each_of_its_frames_once(tmp_path):
    near = {"name": "close_to_a_goal_and_with_a_long_name", "options": {"state": [5, 5, 5.9, 5]}}
    checkpoint = save(tmp_path / "latest.ckpt", groups={"near": {"starts": [near]}})
    options = dict(n_episodes=None, start_seed=None, overrides=["policy.noise=0.0"])
    info = evaluate(checkpoint, tmp_path / "eval", starts="near", **options)
    length = info["per_episode"][0]["length"]
    assert 0 < length < FRAMES_PER_EPISODE - 1
    figure = contact_sheet(info["per_episode"], tmp_path / "eval")
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == [f"step {i}" for i in range(length + 1)]
    assert all(spine.get_visible() for ax in shown for spine in ax.spines.values())


def run_eval(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["eval.py", *arguments])
    runpy.run_path(str(ROOT / "eval.py"), run_name="__main__")


@pytest.mark.slow
def test_command_line(checkpoint, tmp_path, monkeypatch, capsys):
    arguments = [f"--checkpoint={checkpoint}", f"--output-dir={tmp_path / 'eval'}", "--device=cpu"]
    arguments.append("--trust-checkpoint")
    run_eval(monkeypatch, *arguments, "--n-episodes=3", "--n-workers=1", "--n-videos=0")
    assert capsys.readouterr().out.splitlines()[-1].startswith("success rate ")
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert info["seed_range"] == [100_000, 100_002]

    with pytest.raises(SystemExit) as ended:
        run_eval(monkeypatch, *arguments)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("run_7/checkpoints/latest.ckpt", "run_7_latest"),
        ("elsewhere/imported.ckpt", "imported"),
    ],
)
def test_results_have_a_place_of_their_own(tmp_path, monkeypatch, path, name):
    monkeypatch.chdir(tmp_path)
    evaluate(save(tmp_path / path), None, n_episodes=1, n_videos=0)
    assert (tmp_path / EVALUATIONS / name / "eval_info.json").is_file()
    with pytest.raises(UserError, match=rf"{name}/eval_info\.json exists already"):
        evaluate(tmp_path / path, None, n_episodes=1, n_videos=0)


def test_a_mistyped_checkpoint_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint at lastest\.ckpt"):
        evaluate(Path("lastest.ckpt"), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_exported_folder_is_evaluated_under_its_name(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_policy.main([f"--checkpoint={checkpoint}", "--output=toy.v1"])
    expected = evaluate(checkpoint, tmp_path / "eval")
    info = evaluate(Path("toy.v1"), None)
    assert info["per_episode"] == expected["per_episode"]
    assert (EVALUATIONS / "toy.v1" / "report.html").is_file()


@pytest.mark.slow
def test_a_record_of_an_earlier_version_still_makes_a_page(checkpoint, tmp_path):
    info = evaluate(checkpoint, tmp_path / "eval")
    for episode in info["per_episode"]:
        for key in ("best_step", "group", "name"):
            del episode[key]
    for key in ("command", "commit", "machine", "starts", "outcomes", "task", "device"):
        del info[key]
    del info["aggregated"]["failures"]
    page = write_report(info, tmp_path / "eval").read_text()
    assert "<td>stopped improving</td>" in page
    assert "<td>still improving</td>" not in page
    assert "<dt>commit</dt>" not in page
    assert "seeds 40 to 47" in page
    assert re.search(r"seed 4\d: <b", page)


def test_help_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / "eval.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--checkpoint" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert "torch" not in imported


@pytest.mark.slow
def test_settings_of_the_checkpoint_can_be_changed(checkpoint, tmp_path):
    changed = evaluate(checkpoint, tmp_path / "short", overrides=["task.env_runner.max_steps=2"])
    assert changed["overrides"] == ["task.env_runner.max_steps=2"]
    assert all(episode["length"] <= 2 for episode in changed["per_episode"])


@pytest.mark.parametrize("plus", ["+", "++"])
def test_settings_that_the_checkpoint_leaves_at_their_default_can_be_added(checkpoint, plus):
    assert "n_action_steps" not in CONFIG["policy"]
    changes = [f"{plus}policy.n_action_steps=3", f"{plus}policy.noise=0.5"]
    policy, _ = load_policy(checkpoint, overrides=changes, trust=True)
    assert (policy.n_action_steps, policy.noise) == (3, 0.5)
    with pytest.raises(InstantiationException) as raised:
        load_policy(checkpoint, overrides=["+policy.n_action_step=3"], trust=True)
    assert "n_action_step" in user_message(raised.value)


@pytest.mark.parametrize(
    "override",
    [
        "task.env_runner.max_step=2",
        "task.env_runner.max_steps",
        "=2",
        "+",
        "+=1",
        "policy=1",
        "+policy.n_action_steps.unit=3",
        "+task.env_runner.max_steps.unit=3",
        "+task.shape_meta.obs.goal.shape.x=3",
    ],
)
def test_unknown_settings_are_refused(checkpoint, tmp_path, override):
    with pytest.raises(UserError, match="names no setting of the checkpoint"):
        evaluate(checkpoint, tmp_path / "out", overrides=[override])
