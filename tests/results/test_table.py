from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.common.errors import UserError
from diffusion_policy.results.published import SETTINGS
from diffusion_policy.results.result import Result
from diffusion_policy.results.table import _rows, results_page
from tests.policy.test_contract import CONFIGS

ROOT = Path(__file__).parents[2]
HUMAN = "data/pusht/pusht_cchi_v7_replay.zarr"


def result(success_rate, reward, *, config="train_dot_pusht", data=HUMAN) -> Result:
    cfg = OmegaConf.create(
        {
            "name": config,
            "task": {"dataset": {"path": data}},
            "dataloader": {"batch_size": 64},
            "training": {"gradient_accumulate_every": 1},
        }
    )
    score = {
        "success_rate": success_rate,
        "success_ci95": [0.1, 0.9],
        "mean_max_reward": reward,
        "mean_max_reward_ci95": [0.2, 0.8],
    }
    return Result("mine", cfg, {"aggregated": score}, [{"steps": [0, 10], "seconds": 60}])


def row(ours: Result) -> list[str]:
    (found,) = (row for row in _rows([ours]) if "mine" in row[1])
    return list(found)


def test_the_page_in_the_repository_is_up_to_date():
    assert (ROOT / "RESULTS.md").read_text() == results_page(ROOT)


def test_elsewhere_there_is_nothing_to_tabulate(tmp_path):
    with pytest.raises(
        UserError, match=r"docs/results holds no recorded run; run this in the root"
    ):
        results_page(tmp_path)


def test_the_configs_of_the_settings_exist():
    assert {config for setting in SETTINGS for config in setting.configs} <= set(CONFIGS)


@pytest.mark.parametrize(
    ("success_rate", "reward", "verdict"),
    [
        (0.845, 0.964, "**reached**"),
        (0.845, 0.9639, "partly: not 0.964"),
        (0.8449, 0.964, "partly: not 84.5 %"),
        (0.8449, 0.9639, "not reached"),
    ],
)
def test_a_figure_is_reached_only_if_ours_is_no_smaller(success_rate, reward, verdict):
    found = row(result(success_rate, reward))
    assert (found[0], found[-1]) == ("DOT, keypoints", verdict)
    assert found[3].startswith("84.5" if success_rate == 0.845 else "84.4")
    assert found[5].startswith("0.964" if reward == 0.964 else "0.963")


def test_only_the_human_demonstrations_compare():
    found = row(result(1.0, 1.0, data="data/demonstrations/pusht_scripted.zarr.zip"))
    assert found[0] == "DOT, keypoints, scripted demonstrations"
    assert (found[4], found[6], found[7]) == ("", "", "nothing published")


def test_every_published_setting_has_a_row():
    rows = list(_rows([]))
    assert [row[0] for row in rows] == [setting.name for setting in SETTINGS]
    assert all((row[1], row[-1]) == ("none yet", "not reached") for row in rows)
