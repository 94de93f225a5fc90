"""The PushT environment: steps in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np

from benchmarks.case import Options, Work, case, each
from diffusion_policy.env.pusht.render.renderer import draw
from diffusion_policy.gym_util.make_env import make_env

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
"""Trajectories and images from the benchmark's own implementation."""
_EPISODE_STEPS = 100
_KEYPOINTS, _IMAGE = "diffusion_policy/PushTKeypoints-v0", "diffusion_policy/PushTImage-v0"


@each(
    case(
        "pusht.keypoints",
        "PushT keypoint environment, one process, random actions",
        "steps/s",
        reference=2450,
        target=4,
        arguments={"env_id": _KEYPOINTS, "pushing": False},
    ),
    case(
        "pusht.keypoints_pushing",
        "PushT keypoint environment, one process, actions that push",
        "steps/s",
        reference=2450,
        target=4,
        arguments={"env_id": _KEYPOINTS, "pushing": True},
    ),
    case(
        "pusht.image",
        "PushT image environment, one process, random actions",
        "steps/s",
        reference=360,
        target=8,
        arguments={"env_id": _IMAGE, "pushing": False},
    ),
    case(
        "pusht.image_pushing",
        "PushT image environment, one process, actions that push",
        "steps/s",
        reference=360,
        target=8,
        arguments={"env_id": _IMAGE, "pushing": True},
    ),
)
def steps(options: Options, env_id: str, pushing: bool) -> Iterator[Work]:
    """Send the agent to random points: anywhere, or near the block so that it moves often."""
    n_episodes = options.size(20, 1)
    random = np.random.default_rng(0)
    anywhere = random.uniform(0, 512, (n_episodes, _EPISODE_STEPS, 2))
    offsets = random.normal(0, 60, anywhere.shape)
    env = make_env({"id": env_id})

    def run() -> None:
        for seed in range(n_episodes):
            _, info = env.reset(seed=seed)
            for point, offset in zip(anywhere[seed], offsets[seed], strict=True):
                near = np.clip(info["state"][2:4] + offset, 0, 512)
                *_, info = env.step(near if pushing else point)

    yield Work(run, lambda _: check_trajectory(env), n_episodes * _EPISODE_STEPS)
    env.close()


def check_trajectory(env: gymnasium.Env) -> None:
    """Raise AssertionError unless states, rewards and observations equal the benchmark's."""
    expected = np.load(GOLDEN / "pusht_env.npz")
    episode = "s100000_legacy"
    _, info = env.reset(seed=100_000)
    for action, reward, state, keypoints in zip(
        expected[f"{episode}_actions"],
        expected[f"{episode}_reward"],
        expected[f"{episode}_state"][1:],
        expected[f"{episode}_keypoints"][1:],
        strict=True,
    ):
        observation, found, _, _, info = env.step(action)
        np.testing.assert_array_equal(info["state"], state)
        np.testing.assert_allclose(found, reward, rtol=0, atol=1e-12)
        if isinstance(observation, dict):  # compare with a drawing of the whole canvas
            image = draw(state, observation["image"].shape[-1])
            np.testing.assert_array_equal(observation["image"].transpose(1, 2, 0), image)
        else:
            np.testing.assert_allclose(observation[:-2], keypoints.ravel(), atol=1e-4)
    if isinstance(observation, dict):
        _check_images()


def _check_images() -> None:
    rendered = np.load(GOLDEN / "pusht_render.npz")
    for state, image in zip(rendered["state"], rendered["image"], strict=True):
        np.testing.assert_array_equal(draw(state, image.shape[0]), image)
