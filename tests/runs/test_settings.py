from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.runs.run import Run
from diffusion_policy.runs.settings import ABSENT, differences, experiments, labels


def runs(*settings):
    found = []
    for i, values in enumerate(settings):
        found.append(Run(Path(str(i)), str(i)))
        found[-1].settings = values
    return found


def grouped(found):
    return [[run.name for run in group] for group in experiments(found)]


def test_differences_have_a_value_for_each_run():
    found = runs({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None})
    assert differences(found) == {"b": [2, 3], "c": [ABSENT, None]}


@pytest.mark.parametrize(
    "key",
    ["training.seed", "task.dataset.seed", "training.device", "logging.wandb.name", "checkpoint"],
)
def test_seeds_and_what_has_no_effect_make_no_other_experiment(key):
    assert grouped(runs({key: 1, "lr": 1}, {key: 2, "lr": 1}, {key: 1, "lr": 2})) == [
        ["0", "1"],
        ["2"],
    ]


@pytest.mark.parametrize("key", ["task.env_runner.test_start_seed", "training.num_epochs", "seeds"])
def test_what_alters_learning_or_scoring_does(key):
    assert grouped(runs({key: 1}, {key: 2})) == [["0"], ["1"]]


def test_labels_name_the_fewest_settings_that_tell_groups_apart():
    found = runs(
        {"dim": 8, "steps": 1, "lr": 1},
        {"dim": 8, "steps": 2, "lr": 2},
        {"dim": 9, "steps": 3, "lr": 2},
    )
    groups = [[run] for run in found]
    assert labels(groups[:1], "x") == [""]
    assert labels(groups[:2], "xx") == ["lr=1", "lr=2"]
    assert labels(groups, "xxx") == ["steps=1", "steps=2", "steps=3"]
    assert labels(groups, "xyx") == ["lr=1", "", "lr=2"]


values = st.fixed_dictionaries({"a": st.integers(0, 2), "b": st.integers(0, 2), "c": st.text("x")})


@given(st.lists(values, min_size=1, max_size=8))
def test_labels_of_one_name_are_all_different(settings):
    groups = experiments(runs(*settings))
    assert len(set(labels(groups, ["same"] * len(groups)))) == len(groups)
