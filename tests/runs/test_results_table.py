import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.runs.published import benchmark
from diffusion_policy.runs.record_page import result_page
from diffusion_policy.runs.result import Result
from diffusion_policy.runs.results_table import other_rows, recorded, results_page, rows
from diffusion_policy.scripts import results_table
from diffusion_policy.util.errors import UserError
from tests.policy.test_contract import CONFIGS

ROOT = Path(__file__).parents[2]
HUMAN = "data/pusht/pusht_cchi_v7_replay.zarr"


def result(
    success_rate, reward, *, config="train_dot_pusht", data=HUMAN, name="mine", margin=0.1, seed=42
) -> Result:
    cfg = OmegaConf.create(
        {
            "name": config,
            "task": {
                "shape_meta": {"obs": {"agent_pos": {"shape": [2]}}},
                "dataset": {"path": data, "seed": seed},
                "env_runner": {
                    "env": {"id": "diffusion_policy/PushT-v0", "kwargs": {"legacy": True}},
                    "max_steps": 300,
                    "n_latency_steps": 0,
                    "outcomes": {"reward_range": [0, 1]},
                },
            },
            "policy": {"stall_skip": 0},
            "dataloader": {"batch_size": 64},
            "training": {"gradient_accumulate_every": 1, "seed": seed},
        }
    )
    score = {
        "success_rate": success_rate,
        "success_ci95": [success_rate - margin, success_rate + margin],
        "mean_max_reward": reward,
        "mean_max_reward_ci95": [reward - margin, reward + margin],
    }
    info = {
        "aggregated": score,
        "checkpoint": "data/outputs/<run>/checkpoints/latest.ckpt",
        "overrides": [],
        "precision": "fp32",
        "seed_range": [100_000, 100_999],
    }
    return Result(
        Path("docs/results") / name, cfg, info, [{"steps": [0, 95 - seed], "seconds": 60 * seed}]
    )


def row(ours: Result) -> list[str]:
    (found,) = (row for row in rows([ours]) if "mine" in row[1])
    return list(found)


@pytest.mark.slow
def test_the_page_in_the_repository_is_up_to_date():
    assert (ROOT / "RESULTS.md").read_text() == results_page(ROOT)


@pytest.mark.parametrize("folder", recorded(ROOT), ids=lambda folder: folder.name)
def test_the_pages_of_the_runs_are_up_to_date(folder):
    assert (folder / "README.md").read_text() == result_page(folder)


@pytest.mark.slow
def test_the_command_writes_table_and_pages_from_the_notes(tmp_path, monkeypatch, capsys):
    source = recorded(ROOT)[0]
    folder = tmp_path / "docs/results" / source.name
    shutil.copytree(source, folder)
    (folder / "notes.md").write_text("It rained.\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["results_table"])
    written = []
    for _ in range(2):
        results_table.main()
        written.append([(tmp_path / "RESULTS.md").read_text(), (folder / "README.md").read_text()])
    assert written[0] == written[1]
    table, page = written[0]
    assert source.name in table
    assert "It rained." in page
    assert page.partition("\n")[0] == (source / "README.md").read_text().partition("\n")[0]
    assert "wrote RESULTS.md and the pages of 1 recorded runs" in capsys.readouterr().out


def test_what_an_interrupted_record_left_is_no_run(tmp_path):
    source = recorded(ROOT)[0]
    for name in (source.name, f".{source.name}.old", f".{source.name}.host.1.partial"):
        shutil.copytree(source, tmp_path / "docs/results" / name)
    assert [folder.name for folder in recorded(tmp_path)] == [source.name]


def test_elsewhere_there_is_nothing_to_tabulate(tmp_path):
    with pytest.raises(
        UserError, match=r"docs/results holds no recorded run; run this in the root"
    ):
        results_page(tmp_path)


def test_the_configs_of_the_settings_exist():
    assert {config for setting in benchmark().settings for config in setting.configs} <= set(
        CONFIGS
    )


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


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.01, "**clearly reached**"), (0.06, "**reached**")]
)
def test_an_interval_lies_above_when_its_lower_end_does(margin, verdict):
    assert row(result(0.9, 0.99, margin=margin))[-1] == verdict


def test_seeds_of_the_same_settings_share_a_row():
    second = result(0.8, 0.95, name="second", seed=43)
    first = result(0.9, 0.98, name="first")
    # Trained with another value, scored with the same; on another machine.
    second.cfg.policy.stall_skip = 14
    second.info["overrides"] = ["policy.stall_skip=0"]
    second.cfg.training.num_threads = 1
    other = result(0.7, 0.96, name="other", seed=43)
    other.info["overrides"] = ["policy.stall_skip=17"]
    table = rows([second, other, first])
    same, different = [list(found) for found in table if found[0] == "DOT, keypoints"]
    assert [found[1].count("README") for found in (same, different)] == [2, 1]
    assert same[1].index("first") < same[1].index("second")
    assert same[2:4] == [
        "each 52 to 53 steps of 64 in 42 min to 43 min",
        "85.0 % (21.4 to 100.0)",
    ]
    assert same[5] == "0.965 (0.774 to 1.000)"
    assert same[-1] == "**reached**"


def test_one_seed_is_no_second_sample():
    with pytest.raises(UserError, match=r"results/first and .*/second have the .* seed \(42\)"):
        list(rows([result(0.9, 0.98, name="first"), result(0.8, 0.95, name="second")]))


def test_only_the_human_demonstrations_compare():
    found = row(result(1.0, 1.0, data="data/demonstrations/pusht_scripted.zarr.zip"))
    assert found[0] == "DOT, keypoints, scripted demonstrations"
    assert (found[4], found[6], found[7]) == ("", "", "nothing published")


@pytest.mark.parametrize(
    "change",
    [
        ("cfg.task.env_runner.env.id", "diffusion_policy/PushTKeypoints-v0"),
        ("cfg.task.env_runner.env.kwargs.legacy", False),
        ("cfg.task.env_runner.max_steps", 1000),
        ("info.overrides", ["task.env_runner.n_latency_steps=1"]),
        ("info.checkpoint", "data/outputs/<run>/checkpoints/epoch=0007-test_mean_score=0.9.ckpt"),
        ("info.seed_range", [0, 999]),
        ("info.starts", "data/demonstrations.zarr"),
        ("info.global_step", 52),
    ],
    ids=str,
)
def test_only_what_was_scored_as_published_compares(change):
    ours = result(1.0, 1.0)
    key, value = change
    part, _, key = key.partition(".")
    if part == "cfg":
        OmegaConf.update(ours.cfg, key, value)
    else:
        ours.info[key] = value
    found = row(ours)
    assert found[0] == "DOT, keypoints, human demonstrations, scored otherwise"
    assert (found[4], found[6], found[7]) == ("", "", "nothing published")


def test_a_policy_on_images_is_not_compared_with_one_on_keypoints():
    ours = result(1.0, 1.0)
    ours.cfg.task.shape_meta.obs = {"image": {"shape": [3, 96, 96], "type": "rgb"}}
    found = row(ours)
    assert found[0] == "train_dot_pusht, human demonstrations"
    assert found[-1] == "nothing published"


@pytest.mark.parametrize(
    ("runner", "comparable"),
    [
        ({"env": {"id": "diffusion_policy/PushT-v0"}, "max_steps": 300}, True),
        ({"env": {"factory": "my.make_env"}, "max_steps": 300}, False),
    ],
)
def test_a_config_may_leave_out_what_is_the_default(runner, comparable):
    ours = result(1.0, 1.0)
    ours.cfg.task.env_runner = runner
    assert ours.scored_as_published is comparable


@pytest.mark.parametrize("env", [{"id": "my/Reach-v0"}, {"factory": "my.make_env"}])
def test_runs_in_other_environments_have_a_table_of_their_own(env):
    found = [result(0.5, 250.0, name=f"mine_{seed}", seed=seed, margin=9) for seed in (1, 2)]
    for ours in found:
        ours.cfg.name, ours.cfg.task.name = "train_mine", "reach"
        ours.cfg.task.env_runner.update(env=env, outcomes=None)
        assert not ours.is_of_benchmark
    (row,) = other_rows(found)
    assert row[:2] == ("reach", "train_mine")
    assert row[2].count("README") == 2
    assert row[4:] == ("50.0 % (50.0 to 50.0)", "250.000 (250.000 to 250.000)")


@pytest.mark.slow
def test_the_page_lists_other_tasks_apart(tmp_path):
    source = recorded(ROOT)[0]
    results = tmp_path / "docs/results"
    shutil.copytree(source, results / source.name)
    assert "Other tasks" not in results_page(tmp_path)
    folder = shutil.copytree(source, results / "foreign")
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.task.name, cfg.task.env_runner.env = "reach", {"id": "my/Reach-v0"}
    OmegaConf.save(cfg, folder / "config.yaml")
    page = results_page(tmp_path)
    benchmark_part, others = page.split("## Other tasks")
    assert "foreign" not in benchmark_part
    assert "| reach |" in others
    assert "published" not in result_page(folder).rpartition("RESULTS.md")[2]


def test_runs_scored_in_two_ways_share_no_row():
    first, second = result(0.9, 0.9, name="first"), result(0.5, 0.5, name="second", seed=43)
    for ours in (first, second):
        ours.cfg.name = "mine"  # published figures stand beside neither
    second.info["checkpoint"] = "checkpoints/epoch=0001.ckpt"
    assert sum("README" in found[1] for found in rows([first, second])) == 2


def test_every_published_setting_has_a_row():
    found = list(rows([]))
    assert [row[0] for row in found] == [setting.name for setting in benchmark().settings]
    assert all((row[1], row[-1]) == ("none yet", "not tried") for row in found)
