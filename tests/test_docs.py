"""The commands and programs in the documentation exist and parse."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.checkpoint.policy_folder import save_policy_folder
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.env_runner.evaluation import evaluate_checkpoint
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.configs import compose_config, tiny_policy
from tests.policy.test_contract import make_obs, make_policy

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(pages: Sequence[Path] = PAGES) -> list[str]:
    """Return every ``python``, ``torchrun`` and ``make`` command of the pages."""
    found = set()
    for page in pages:
        text = page.read_text()
        blocks = re.findall(r"```(?:\w*)\n(.*?)```", text, flags=re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", text)
        found.update(line for line in lines if re.match(r"(python \S+|torchrun -|make \w+)", line))
    return sorted(found)


TRAINING = [
    c
    for c in commands()
    if re.search(r"train\.py .*--config-name", c) and not re.search("my_(task|arm)", c)
]
OTHER = [
    c for c in commands() if c.startswith("python ") and "train.py" not in c and "my_task." not in c
]


@pytest.mark.parametrize("command", TRAINING)
def test_training_commands_compose(command):
    words = shlex.split(command.split(" #")[0])
    name = next(w for w in words if w.startswith("--config-name")).split("=")[1]
    # Of a sweep, the first job; Hydra's own settings need plugins that may be absent.
    overrides = [
        re.sub(r"=(tag\(.*?)?(interval\()?([^\[,(]+),.*", r"=\3", w)
        for w in words[2:]
        if "=" in w and not w.startswith(("-", "hydra", "+hydra"))
    ]
    assert compose_config(name, *overrides).name.startswith("train_")


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted({" ".join(shlex.split(c)[1:3]) for c in OTHER}))
def test_other_commands_exist_and_know_their_options(module):
    first, second = module.split(" ")[:2] if " " in module else (module, "")
    start = ["-m", second] if first == "-m" else [first]
    result = subprocess.run(
        [sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for command in OTHER:
        words = shlex.split(command.split(" #")[0])
        if words[1 : 1 + len(start)] == start:
            for option in (w.split("=")[0] for w in words if w.startswith("--")):
                assert option in result.stdout, f"{command}: {option} is unknown"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "setting", "name"),
    [
        ("diffusion_policy.md", "noise_scheduler.sampler", "train_diffusion_unet_pusht"),
        ("diffusion_policy.md", "alpha", "train_diffusion_unet_pusht"),
        ("dot.md", "stall_skip", "train_dot_pusht"),
    ],
)
def test_a_trained_policy_acts_with_the_settings_of_the_page(tmp_path, page, setting, name):
    command = next(c for c in commands([ROOT / "docs" / page]) if f"policy.{setting}=" in c)
    overrides = [w for w in shlex.split(command) if w.lstrip("+").startswith("policy.")]
    cfg, trained = compose_config(name, *tiny_policy(name)), make_policy(name)
    checkpoint = tmp_path / "latest.ckpt"
    save_checkpoint(
        checkpoint, OmegaConf.to_yaml(cfg, resolve=True), {"model": trained.state_dict()}
    )
    obs = make_obs(trained, 2)
    before = trained.eval().predict_action(obs)["action"]
    policy, changed = load_policy(checkpoint, overrides=overrides)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        assert str(OmegaConf.select(changed, key)) == value
    assert not torch.equal(policy.predict_action(obs)["action"], before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_dot_pusht", "train_diffusion_unet_pusht"])
def test_the_loop_of_ones_own_plays_one_episode(tmp_path, monkeypatch, capsys, name):
    cfg = compose_config(name, *tiny_policy(name))
    save_policy_folder(
        tmp_path / "data/pretrained/dot_pusht",
        OmegaConf.to_yaml(cfg, resolve=True),
        make_policy(name).state_dict(),
    )
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/agent.md").read_text()
    names: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    # Chunks of eight actions do not end with the episode; the loop has to.
    steps = names["env"].get_wrapper_attr("_elapsed_steps")
    assert names["terminated"] or steps == 300
    outcome = "success" if names["terminated"] else "no success"
    assert capsys.readouterr().out == f"reward {names['reward']:.3f}, {outcome}\n"


@pytest.mark.slow
def test_the_pretrained_policy_pushes_the_t(tmp_path):
    info = evaluate_checkpoint(
        ROOT / "data/pretrained/dot_pusht", tmp_path, n_episodes=6, n_videos=0, n_workers=1
    )
    # Of 1000 starts, 96 % succeed; one of six may not.
    assert info["aggregated"]["mean_max_reward"] > 0.8
    assert info["aggregated"]["success_rate"] >= 0.5
    assert info["global_step"] is None  # a folder does not tell


@pytest.mark.slow
def test_the_starts_of_the_page_can_be_played(tmp_path):
    page = (ROOT / "docs/evaluation.md").read_text()
    starts = re.search(r"```yaml\n(- .*?)```", page, re.DOTALL)[1]
    (tmp_path / "corners.yaml").write_text(starts)
    info = evaluate_checkpoint(
        ROOT / "data/pretrained/dot_pusht",
        tmp_path / "eval",
        starts=str(tmp_path / "corners.yaml"),
        n_videos=0,
        n_workers=1,
        overrides=["task.env_runner.max_steps=3"],
    )
    played = [(e["group"], e["name"], e["seed"]) for e in info["per_episode"]]
    assert played == [("corners", "left", 0), ("corners", "right", 7)]


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = {c.split()[1] for c in commands() if c.startswith("make ")}
    assert {"train", "test"} <= shown
    assert shown <= targets


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_example_method_follows_the_contract(tmp_path, monkeypatch):
    source = re.search(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    (tmp_path / "linear_policy.py").write_text(source[1])
    monkeypatch.syspath_prepend(tmp_path)
    policy = importlib.import_module("linear_policy").LinearPolicy(
        {"obs": {"x": {"shape": [3]}}, "action": {"shape": [2]}}
    )
    normalizer = LinearNormalizer()
    normalizer.fit({"x": np.random.rand(9, 3), "action": np.random.rand(9, 2)})  # noqa: NPY002
    policy.set_normalizer(normalizer)
    batch = {"obs": {"x": torch.rand(4, 1, 3)}, "action": torch.rand(4, 1, 2)}
    policy.compute_loss(batch)[0].backward()
    assert policy.predict_action(batch["obs"])["action"].shape == (4, 1, 2)
