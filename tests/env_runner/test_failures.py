from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.env_runner.failures import MEANINGS, count_failures, failure_kind

EPISODES = st.lists(
    st.fixed_dictionaries(
        {
            "max_reward": st.floats(0, 1),
            "best_step": st.integers(1, 300),
            "length": st.just(300),
            "success": st.booleans(),
        }
    )
)


def test_the_first_kind_that_applies_counts():
    def kind(max_reward, best_step):
        return failure_kind({"max_reward": max_reward, "best_step": best_step, "length": 300})

    assert [kind(0.95, step) for step in (1, 300)] == ["near miss", "near miss"]
    assert [kind(reward, 271) for reward in (0.9499, 0.1)] == ["slow", "slow"]
    assert [kind(reward, 270) for reward in (0.8, 0.7999)] == ["in between", "lost"]


@given(EPISODES)
def test_every_failure_is_counted_once(episodes):
    counts = count_failures(episodes)
    assert list(counts) == list(MEANINGS)
    assert sum(counts.values()) == sum(not episode["success"] for episode in episodes)


@given(EPISODES)
def test_without_the_best_step_none_is_called_slow(episodes):
    before = count_failures(episodes)
    for episode in episodes:
        del episode["best_step"]
    counts = count_failures(episodes)
    if episodes:
        assert "slow" not in counts
        assert sum(counts.values()) == sum(before.values())
        assert counts["near miss"] == before["near miss"]
