from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_policy.policy.chunk_following import (
    ChunkFollower,
    geometric_weights,
    oldest_first_weights,
    rows_of,
)
from diffusion_policy.util.errors import UserError
from tests.reference import golden

N_PAST, N_AHEAD = 2, 12
SETTINGS = {
    "plain": {},
    "receding": {"n_action_steps": 4},
    "less-often": {"predict_every_n": 3},
    "less-often-receding": {"n_action_steps": 2, "predict_every_n": 3},
    "faster": {"return_every_n": 2},
    "faster-receding": {"n_action_steps": 3, "return_every_n": 3},
    "all": {"n_action_steps": 2, "predict_every_n": 2, "return_every_n": 2},
}


def random_chunks(n_calls: int, n_envs: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_calls, n_envs, N_PAST + N_AHEAD, 3, generator=generator)


def follow(follower: ChunkFollower, chunks: Sequence[Tensor], ids: Sequence[int] = (0,)) -> list:
    """The plan at every call, where ``chunks`` has one chunk per call and environment."""
    ids = torch.as_tensor(ids)
    plans = []
    for chunk in chunks:
        due = follower.due(ids)
        if due.any():
            follower.take(ids[due], chunk[due])
        plans.append(follower.follow(ids))
    return plans


def actions_by_definition(
    chunks: Tensor, weights, fills: bool, n_action_steps=1, predict_every_n=1, return_every_n=1
) -> Tensor:
    """Actions (calls, Ta, D) of one environment, with plain lists of the chunks kept at a step."""

    def later(chunk: list) -> list:
        return [*chunk[1:], chunk[-1]]

    kept, newest, actions = [], None, []
    for call, chunk in enumerate(chunks):
        if call % predict_every_n == 0:
            newest = list(chunk[0, N_PAST:])
        if fills and not kept:
            kept = [newest] * N_AHEAD
        for _ in range(n_action_steps):
            for _ in range(return_every_n):
                kept = [newest, *kept][:N_AHEAD]
                action = sum(w * c[0] for w, c in zip(weights(len(kept)), kept, strict=True))
                kept, newest = [later(c) for c in kept], later(newest)
            actions.append(action)
    return torch.stack(actions).unflatten(0, (len(chunks), n_action_steps))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("weights", "fills"),
    [
        (geometric_weights(0.75), True),
        (geometric_weights(0), True),
        (oldest_first_weights(0.1), False),
    ],
    ids=["dot", "newest", "act"],
)
def test_actions_equal_the_definition(name, weights, fills):
    settings = SETTINGS[name]
    chunks = random_chunks(9)
    follower = ChunkFollower(N_AHEAD, weights, first_chunk_fills=fills, **settings)
    plans = torch.stack(follow(follower, chunks))[:, 0]
    executed = plans[:, N_PAST : N_PAST + follower.n_action_steps]
    expected = actions_by_definition(chunks, weights, fills, **settings)
    torch.testing.assert_close(executed, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_newest_chunk_alone_is_followed_exactly(name):
    follower = ChunkFollower(N_AHEAD, geometric_weights(0), **SETTINGS[name])
    (chunk,) = random_chunks(1)
    (plan,) = follow(follower, [chunk])
    rows = [*range(N_PAST), *(N_PAST + offset for offset in follower.offsets)]
    assert torch.equal(plan, chunk[:, rows])
    assert follower.n_actions_ahead >= follower.n_action_steps


@pytest.mark.parametrize("case", range(4))
def test_ensembles_equal_those_of_act(case):
    record = golden("act_temporal_ensemble")
    chunks = torch.from_numpy(record[f"c{case}_chunks"])
    weights = oldest_first_weights(float(record[f"c{case}_coeff"]))
    follower = ChunkFollower(chunks.shape[2], weights, first_chunk_fills=False)
    executed = torch.stack(follow(follower, chunks, ids=[0, 1]))[:, :, 0]
    np.testing.assert_allclose(executed, record[f"c{case}_executed"], atol=1e-5)


def test_geometric_weights_are_those_of_dot():
    expected = golden("dot_weights")["action_weights"]
    np.testing.assert_allclose(geometric_weights(0.75)(20), expected, atol=1e-5)


@pytest.mark.parametrize("fills", [True, False])
def test_environments_are_independent_and_reset_alone(fills):
    def make() -> ChunkFollower:
        return ChunkFollower(
            N_AHEAD, geometric_weights(0.5), first_chunk_fills=fills, predict_every_n=2
        )

    together, alone = make(), [make() for _ in range(3)]
    for step, chunks in enumerate(random_chunks(8, 3)):
        if step == 3:
            together.reset([1])
            alone[1].reset()
        ids = [0, 1, 2] if step != 5 else [2, 0]
        (plan,) = follow(together, [chunks[ids]], ids)
        for row, env in enumerate(ids):
            (expected,) = follow(alone[env], [chunks[[env]]])
            torch.testing.assert_close(plan[[row]], expected)


def test_environments_that_stand_still_skip_a_part_of_the_chunk():
    follower = ChunkFollower(N_AHEAD, geometric_weights(0), n_action_steps=2, stall_skip=5)
    ids = torch.arange(2)
    follower.due(ids)
    follower.take(ids, torch.arange(-2.0, N_AHEAD)[None, :, None].expand(2, -1, 1))
    plan = follower.follow(ids, stalled=torch.tensor([False, True]))[..., 0]
    assert plan[0].tolist() == list(range(-2, N_AHEAD))
    assert plan[1].tolist() == [-2, -1, *range(5, N_AHEAD), *[N_AHEAD - 1] * 5]
    assert follower.n_actions_ahead == N_AHEAD - 5
    assert follower.n_control_steps(ids).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"return_every_n": 7, "n_action_steps": 2}, "return_every_n is 7; use .* from 1 to 6"),
        ({"return_every_n": 0}, "return_every_n is 0; use a whole number from 1 to 12"),
        ({"return_every_n": True}, "return_every_n is True"),
        ({"predict_every_n": 4, "return_every_n": 4}, "predict_every_n is 4; .* from 1 to 3"),
        ({"stall_skip": 9, "n_action_steps": 4}, "stall_skip is 9; use a .* from 0 to 8"),
        ({"stall_skip": 1.5}, "stall_skip is 1.5"),
    ],
)
def test_settings_that_let_the_plan_run_out_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ChunkFollower(N_AHEAD, geometric_weights(0.5), **settings)


def test_rows_are_selected_from_tensors_and_texts():
    obs = {"state": torch.arange(6).view(3, 2), "task": ["push", "lift", "turn"]}
    assert rows_of(obs, torch.tensor([True] * 3)) is obs
    some = rows_of(obs, torch.tensor([True, False, True]))
    assert some["state"].tolist() == [[0, 1], [4, 5]]
    assert some["task"] == ["push", "turn"]
