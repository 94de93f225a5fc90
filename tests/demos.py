"""Make small PushT demonstrations by random pushes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.simulation import PushTSimulation, initial_state


def make_demos(path: Path, n_episodes: int = 6, length: int = 30) -> Path:
    """A zarr folder with ``data/state`` (5) and ``data/action`` (2) of random episodes."""
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    for seed in range(n_episodes):
        rng = np.random.default_rng(seed)
        simulation = PushTSimulation()
        simulation.set_state(initial_state(seed))
        target = simulation.get_state()[2:4]
        states, actions = [], []
        for _ in range(length + seed):
            target = np.clip(target + rng.normal(0, 20, 2), 0, 512)
            states.append(simulation.get_state())
            actions.append(target)
            simulation.step(target)
        buffer.add_episode(
            {
                "state": np.array(states, dtype=np.float32),
                "action": np.array(actions, dtype=np.float32),
            }
        )
    return path
