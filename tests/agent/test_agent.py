import subprocess
import sys

import numpy as np
import pytest

from diffusion_policy.agent.agent import Agent
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.errors import UserError

SPEC = TaskSpec.parse(
    {
        "obs": {"step": {"shape": [1]}, "image": {"shape": [3, 2, 4], "type": "rgb"}},
        "action": {"shape": [2]},
    }
)


class PlanningAgent(Agent):
    """Plans what it saw last, and how many steps after that an action is due."""

    def __init__(self, obs_offsets=(-1, 0), n_action_steps=3, n_actions_ahead=5, n_latency_steps=0):
        super().__init__(
            SPEC,
            obs_offsets=obs_offsets,
            n_action_steps=n_action_steps,
            n_actions_ahead=n_actions_ahead,
            n_latency_steps=n_latency_steps,
        )
        self.seen, self.begun = [], []

    def plan(self, obs, ids):
        self.seen.append(obs["step"][:, :, 0].tolist())
        seen = np.repeat(obs["step"][:, -1], self.n_actions_ahead, axis=1)
        ahead = np.broadcast_to(np.arange(self.n_actions_ahead), seen.shape)
        return np.stack([seen, ahead], axis=-1)

    def begin(self, ids, seeds):
        self.begun.append((ids, seeds))


def observation(step):
    return {"step": np.array([step]), "image": np.zeros((3, 2, 4), np.uint8), "more": "ignored"}


@pytest.mark.slow
def test_imports_no_torch():
    code = "import diffusion_policy.agent.agent, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_acts_along_a_chunk_and_asks_when_it_is_used_up():
    agent = PlanningAgent()
    executed = [agent.act(observation(step)) for step in range(7)]
    assert agent.seen == [[[0, 0]], [[2, 3]], [[5, 6]]]
    assert [actions.action.tolist() for actions in executed[:4]] == [
        [[0, 0], [0, 1], [0, 2]],
        [[0, 1], [0, 2]],
        [[0, 2]],
        [[3, 0], [3, 1], [3, 2]],
    ]


def test_observing_in_between_is_the_same():
    every, seldom = PlanningAgent(), PlanningAgent()
    for step in range(9):
        actions = every.act(observation(step))
        if step % 3:
            seldom.observe(observation(step))
        else:
            np.testing.assert_array_equal(seldom.act(observation(step)).action, actions.action)
    assert seldom.seen == every.seen


def test_latency_reads_old_observations_and_skips_actions():
    agent = PlanningAgent(n_latency_steps=2)
    assert agent.obs_offsets == (-3, -2)
    executed = [agent.act(observation(step)).action[0].tolist() for step in range(6)]
    assert agent.seen == [[[0, 0]], [[0, 1]]]
    assert executed == [[0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4]]


def test_actions_have_time_stamps():
    agent = PlanningAgent()
    assert agent.act(observation(0)).times.tolist() == [0, 1, 2]  # in steps: no fps is named
    assert agent.act(observation(1)).times.tolist() == [1, 2]
    assert agent.act(observation(2), time=50.0).times.tolist() == [50]


def test_with_latency_leaves_the_agent_as_it_is():
    agent = PlanningAgent()
    agent.act(observation(0))
    late = agent.with_latency(1)
    assert (agent.n_latency_steps, late.n_latency_steps) == (0, 1)
    late.act(observation(7))
    assert agent.act(observation(1)).action.tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize("n_latency_steps", [-1, 3])
def test_a_plan_that_is_too_short_for_the_latency_is_refused(n_latency_steps):
    with pytest.raises(UserError, match=f"is {n_latency_steps}; use at most 2, .* plans 5 .* 3"):
        PlanningAgent(n_latency_steps=n_latency_steps)


@pytest.mark.parametrize(
    ("ids", "forgets"), [(None, True), ([0, 1], True), ([1], False)], ids=["all", "with 0", "1"]
)
def test_reset_starts_an_episode(ids, forgets):
    agent = PlanningAgent()
    agent.act(observation(4))
    agent.reset(ids)
    actions = agent.act(observation(5))
    assert agent.seen == [[[4, 4]], [[5, 5]]][: 1 + forgets]
    assert len(actions.action) == (3 if forgets else 2)


def test_seeds_without_ids_are_of_the_first_environments():
    agent = PlanningAgent()
    agent.reset(seeds=[8, 9])
    assert agent.begun == [(range(2), [8, 9])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, "the observation has no 'step', but image; the policy needs step, image"),
        ({"step": np.zeros(2)}, r"observation 'step' has shape \[2\]; the task's is \[1\]"),
        ({"step": np.array(["a"])}, "observation 'step' is <U1; give numbers"),
        ({"image": np.zeros((2, 4, 3), np.uint8)}, r"\[3, 2, 4\]; move the channels first"),
        ({"image": np.zeros((3, 4, 4), np.uint8)}, r"\[3, 4, 4\]; the task's is \[3, 2, 4\]$"),
        ({"step": np.array([np.nan])}, "'step' holds NaN or infinity; give finite numbers"),
        ({"image": np.zeros((3, 2, 4))}, "'image' is float64; give images as uint8, 0 to 255"),
    ],
)
def test_a_wrong_observation_is_named(change, message):
    given = {key: value for key, value in observation(0).items() if key != "more"} | change
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(UserError, match=message):
        PlanningAgent().act(given)


@pytest.mark.parametrize(
    ("plan", "message"),
    [(np.zeros((1, 2, 2)), "have shape"), (np.full((1, 5, 2), np.nan), "not finite")],
)
def test_unusable_actions_are_not_executed(monkeypatch, plan, message):
    agent = PlanningAgent()
    monkeypatch.setattr(agent, "plan", lambda obs, ids: plan)
    with pytest.raises(UserError, match=message):
        agent.act(observation(0))
