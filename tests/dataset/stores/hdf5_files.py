"""Small HDF5 files in the layouts of robomimic and Isaac Lab."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LENGTHS = (5, 1, 7)
TASK = "lift the cube"


def episode_arrays(length: int, seed: int) -> dict[str, np.ndarray]:
    """What an episode of the files below holds, by path."""
    rng = np.random.default_rng(seed)
    return {
        "actions": rng.normal(size=(length, 7)),
        "obs/agentview_image": rng.integers(0, 256, (length, 8, 10, 3), np.uint8),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "rewards": rng.normal(size=length),
        "dones": np.arange(length) == length - 1,
        "states": rng.normal(size=(length, 11)),
    }


def write_robomimic(
    path: Path, lengths: Sequence[int] = LENGTHS, order: Sequence[int] | None = None, **how: Any
) -> Path:
    """Episodes in which demo_<i> comes i-th, written in another order.

    Args:
        order: numbers of the demos in the order of writing.
        how: of every array, such as compression.
    """
    with h5py.File(path, "w", libver=how.pop("libver", "earliest")) as file:
        data = file.create_group("data")
        env_args = {
            "env_name": "Lift",
            "type": 1,
            "env_kwargs": {"control_freq": 20, "robots": ["Panda"]},
        }
        data.attrs.update(total=sum(lengths), env_args=json.dumps(env_args))
        for i in order or reversed(range(len(lengths))):
            demo = data.create_group(f"demo_{i}")
            demo.attrs.update(
                num_samples=lengths[i], model_file="<mujoco/>", ep_meta=json.dumps({"lang": TASK})
            )
            arrays = episode_arrays(lengths[i], i)
            for name, values in arrays.items():
                demo.create_dataset(name, data=values, **how)
                if name.startswith("obs/"):
                    demo.create_dataset(f"next_{name}", data=values, **how)
        names = [f"demo_{i}" for i in range(len(lengths))]
        file["mask/train"] = np.array(names[1:], "S")
        file["mask/odd"] = np.array(names[1::2], "S")
    return path


def write_isaac_lab(path: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    """Episodes as the recorder of Isaac Lab writes them."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        simulation = {"dt": 0.01, "decimation": 2, "num_envs": 1}
        env_args = {"env_name": "Lift-v0", "type": 2, "sim_args": simulation}
        data.attrs.update(total=sum(lengths), env_args=json.dumps(env_args))
        for i, length in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs.update(num_samples=length, seed=i, success=i != 1)
            arrays = episode_arrays(length, i)
            pack = {"compression": "lzf", "chunks": True, "maxshape": None}
            for name, source in {
                "actions": "actions",
                "obs/front": "obs/agentview_image",
                "obs/joint_pos": "obs/robot0_eef_pos",
                "obs/actions": "actions",
            }.items():
                values = arrays[source]
                values = values if values.dtype == np.uint8 else values.astype(np.float32)
                pack["maxshape"] = (None, *values.shape[1:])
                demo.create_dataset(name, data=values, **pack)
            demo["obs/datagen_info/eef_pose/robot"] = np.zeros((length, 4, 4))
            state = demo.create_group("initial_state")
            state["rigid_object/cube/root_pose"] = np.full((1, 7), 7.0)
            state["articulation/robot/joint_position"] = np.full((1, 6), 6.0)
            demo["states/rigid_object/cube/root_pose"] = np.zeros((length, 7))
    return path
