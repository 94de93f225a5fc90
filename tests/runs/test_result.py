import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion_policy.runs.episodes import read_episodes, write_episodes
from diffusion_policy.runs.result import Result, duration, percent, thousandths
from diffusion_policy.runs.results_table import recorded

ROOT = Path(__file__).parents[2]


@given(st.integers(0, 1000))
def test_shares_of_a_thousand_are_shown_exactly(n):
    assert percent(n / 1000) == f"{n // 10}.{n % 10}"
    assert thousandths(n / 1000) == f"{n // 1000}.{n % 1000:03d}"


@given(st.floats(0, 1))
def test_nothing_is_rounded_up(value):
    assert float(thousandths(value)) <= value
    assert math.isclose(float(thousandths(value)), value, abs_tol=0.001)
    assert float(percent(value)) <= 100 * value * (1 + 1e-15)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("data/demonstrations/pusht_scripted.zarr.zip", "scripted"),
        ("data/pusht/pusht_cchi_v7_replay.zarr", "human"),
        ("elsewhere/pusht_human.zarr.zip", "human"),
        ("scripted/mine.zarr", "mine.zarr"),
    ],
)
def test_tells_the_demonstrations_apart(path, kind):
    cfg = OmegaConf.create({"task": {"dataset": {"path": path}}})
    assert Result(Path("a"), cfg, {}, []).demonstrations == kind


def test_tells_the_demonstrations_of_a_mixture():
    paths = ["a/pusht_human.zarr.zip", "a/pusht_scripted.zarr.zip", "b/pusht_human.zarr.zip"]
    datasets = {str(i): {"path": path} for i, path in enumerate(paths)}
    cfg = OmegaConf.create({"task": {"dataset": {"datasets": datasets}}})
    result = Result(Path("a"), cfg, {}, [])
    assert result.demonstration_paths == paths
    assert result.demonstrations == "human and scripted"


def test_episodes_come_back_exactly(tmp_path):
    episodes = [
        {"seed": 1, "group": "test", "name": "7", "max_reward": 0.1 + 0.2, "success": True},
        {"seed": 2, "group": "test", "name": "a,b", "max_reward": 1.0, "success": False},
    ]
    for video, episode in zip(("videos/a.mp4", None), episodes, strict=True):
        episode |= {"video": video, "length": 300}
    path = tmp_path / "episodes.csv.gz"
    write_episodes(path, episodes)
    assert read_episodes(path) == episodes
    before = path.read_bytes()
    write_episodes(path, episodes)
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_records_of_earlier_versions_are_read(tmp_path, packed):
    source = recorded(ROOT)[0]
    folder = shutil.copytree(source, tmp_path / source.name)
    expected = Result.read(source)
    if not packed:
        (folder / "eval_info.json").write_text(json.dumps(expected.info, indent=2))
        (folder / "episodes.csv.gz").unlink()
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.task.dataset._target_ = "diffusion_policy.dataset.replay_dataset.ReplayDataset"
    OmegaConf.save(cfg, folder / "config.yaml")
    found = Result.read(folder)
    assert found.info == expected.info
    assert len(found.info["per_episode"]) == found.score["n_episodes"]
    assert found.settings == expected.settings


def test_effort_adds_up_the_launches():
    cfg = OmegaConf.create(
        {"dataloader": {"batch_size": 8}, "training": {"gradient_accumulate_every": 2}}
    )
    launches = [{"steps": [0, 900], "seconds": 90}, {"steps": [900, 1200], "seconds": 30}]
    assert Result(Path("a"), cfg, {}, launches).effort == "1,200 steps of 16 in 2 min"
    later = Result(Path("a"), cfg, {}, launches[1:])
    assert later.effort == "1,200 steps of 16 in more than 0 min"
    assert duration(9000) == "2.5 h"
