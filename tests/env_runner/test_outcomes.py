import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.env_runner.outcomes import Outcomes
from diffusion_policy.util.errors import UserError
from tests.configs import compose_config

PUSHT = Outcomes.parse(compose_config("train_dot_pusht").task.env_runner.outcomes)
GENERIC = Outcomes.parse(None)
EPISODES = st.lists(
    st.fixed_dictionaries(
        {
            "max_reward": st.floats(-1e9, 1e9),
            "best_step": st.integers(1, 300),
            "length": st.just(300),
            "success": st.sampled_from([True, False, None]),
        }
    )
)


def episode(max_reward, best_step, length=300, success=False):
    return dict(max_reward=max_reward, best_step=best_step, length=length, success=success)


def kind(outcomes, *values):
    return outcomes.kind(episode(*values)).name


def test_the_first_kind_that_applies_counts():
    assert [kind(PUSHT, 0.95, step) for step in (1, 300)] == ["near miss", "near miss"]
    assert [kind(PUSHT, reward, 271) for reward in (0.9499, 0.1)] == ["slow", "slow"]
    assert [kind(PUSHT, reward, 270) for reward in (0.8, 0.7999)] == ["in between", "lost"]


def test_a_task_that_declares_nothing_is_read_without_a_scale():
    assert GENERIC.reward_range is None
    for reward in (-400.0, 0.99, 7000.0):
        assert kind(GENERIC, reward, 46, 50) == "still improving"
        assert kind(GENERIC, reward, 45, 50) == "stopped improving"
    assert GENERIC.near_misses([episode(0.99, 1)]) == []


def test_a_task_declares_its_own():
    outcomes = Outcomes.parse(
        {"reward_range": [-100, 0], "failures": {"close": {"at_least": -5, "last_part": 0.5}}}
    )
    assert outcomes.reward_range == (-100, 0)
    close, early, far = (-5, 90, 100), (-5, 50, 100), (-6, 90, 100)
    assert kind(outcomes, *close) == "close"
    assert kind(outcomes, *early) == kind(outcomes, *far) == "other"
    assert [each.meaning for each in outcomes.kinds] == [
        "max reward of -5 or more, best reward within the last 50 % of the steps",
        "any other",
    ]


@pytest.mark.parametrize("outcomes", [PUSHT, GENERIC])
@given(EPISODES)
def test_every_failure_is_counted_once(outcomes, episodes):
    counts = outcomes.count(episodes)
    assert list(counts) == [kind.name for kind in outcomes.kinds]
    assert sum(counts.values()) == sum(episode["success"] is False for episode in episodes)


@given(EPISODES)
def test_without_the_best_step_none_is_called_slow(episodes):
    before = PUSHT.count(episodes)
    for each in episodes:
        del each["best_step"]
    counts = PUSHT.count(episodes)
    if episodes:
        assert "slow" not in counts
        assert sum(counts.values()) == sum(before.values())
        assert counts["near miss"] == before["near miss"]


@pytest.mark.parametrize("outcomes", [PUSHT, GENERIC])
def test_a_declaration_is_read_back(outcomes):
    assert Outcomes.parse(outcomes.declaration) == outcomes


def test_configs_of_earlier_versions_read_pusht_as_they_did():
    cfg = compose_config("train_dot_pusht")
    del cfg.task.env_runner.outcomes
    assert Outcomes.parse(migrate_config(cfg).task.env_runner.outcomes) == PUSHT
    cfg.task.env_runner.env = {"id": "Pendulum-v1"}
    assert "outcomes" not in migrate_config(cfg).task.env_runner


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([1], r"outcomes is \[1\]; write reward_range and failures"),
        ({"range": [0, 1]}, r"outcomes\.range is unknown; known keys are reward_range, failures"),
        ({"reward_range": [0]}, r"reward_range is \[0\]; use \[least, largest\]"),
        ({"reward_range": [0, float("inf")]}, r"reward_range is \[0, inf\]; use \[least"),
        ({"reward_range": [1, 0]}, "the second must be the larger one"),
        ({"failures": ["slow"]}, r"failures is \['slow'\]; write conditions by kind"),
        ({"failures": {"slow": 3}}, r"failures\.slow is 3; write conditions, or \{\} for none"),
        ({"failures": {"slow": {"above": 3}}}, r"failures\.slow\.above is unknown"),
        ({"failures": {"a": {"below": "x"}}}, r"failures\.a\.below is 'x'; use a number"),
        ({"failures": {"a": {"below": True}}}, r"failures\.a\.below is True; use a number"),
        ({"failures": {"a": {"last_part": 1}}}, r"failures\.a\.last_part is 1; use more than 0"),
    ],
)
def test_a_declaration_of_another_form_is_refused(declared, message):
    with pytest.raises(UserError, match=message):
        Outcomes.parse(declared)
