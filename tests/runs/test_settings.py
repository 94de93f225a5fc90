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


def test_labels_name_all_settings_that_tell_groups_apart():
    found = runs(
        {"dim": 8, "steps": 1, "lr": 1},
        {"dim": 8, "steps": 2, "lr": None},
        {"dim": 9, "steps": 3, "lr": None},
    )
    groups = [[run] for run in found]
    assert labels(groups[:1], "x") == [""]
    assert labels(groups[:2], "xx") == ["lr=1, steps=1", "lr=null, steps=2"]
    assert labels(groups, "xxx") == [
        "steps=1, dim=8, lr=1",
        "steps=2, dim=8, lr=null",
        "steps=3, dim=9, lr=null",
    ]
    assert labels(groups, "xyx") == ["lr=1, dim=8, steps=1", "", "lr=null, dim=9, steps=3"]


def test_a_label_of_many_settings_begins_with_what_tells_most_and_counts_the_rest():
    common = {f"s{i}": 0 for i in range(10)}
    found = runs(common, {**{key: 1 for key in common}, "last": 1}, {**common, "last": 2})
    first, *_ = labels([[run] for run in found], "xxx")
    assert first.startswith("last=absent, s0=0")
    assert first.endswith(" and 5 more")


def test_a_section_that_is_missing_is_one_difference():
    runner = {"task.env_runner._target_": "some.where.Runner", "task.env_runner.env.id": "a"}
    found = runs(runner, {"task.env_runner": None}, {"task.env_runner": {}})
    assert differences(found) == {"task.env_runner": ["some.where.Runner", None, {}]}
    assert labels([[run] for run in found], "xxx") == [
        "task.env_runner=Runner",
        "task.env_runner=null",
        "task.env_runner={}",
    ]
    lists = runs({"s.a": 1, "s.b": 2}, {"s": None})
    assert differences(lists) == {"s": ["{...}", None]}


def test_a_setting_that_came_later_has_the_value_of_its_time():
    found = runs({"lr": 1}, {"lr": 1, "policy.alpha": 0.5})
    assert labels([[run] for run in found], "xx") == ["policy.alpha=0", "policy.alpha=0.5"]


values = st.fixed_dictionaries({"a": st.integers(0, 2), "b": st.integers(0, 2), "c": st.text("x")})


@pytest.mark.slow
@given(st.lists(values, min_size=1, max_size=8))
def test_labels_of_one_name_are_all_different(settings):
    groups = experiments(runs(*settings))
    assert len(set(labels(groups, ["same"] * len(groups)))) == len(groups)
