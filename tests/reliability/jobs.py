"""Jobs that can be killed at any moment: what each does, what it must leave, how it must end."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from tqdm import tqdm

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zarr_store import ZarrStore
from diffusion_policy.env_runner.evaluation import evaluate_checkpoint
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos
from tests.states import assert_equal_states, comparable_log, final_state


class Job(ABC):
    """Work in a folder that may be killed and started again.

    Attributes:
        name: as the command prints it.
        inputs: folder of what :meth:`prepare` made; no trial writes there.
    """

    name: ClassVar[str]

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs

    def prepare(self) -> None:  # noqa: B027 -- not every job reads something
        """Make what every trial reads."""

    @abstractmethod
    def work(self, folder: Path, tell: Callable[[], None]) -> None:
        """Do the job, or go on with it; call ``tell`` after each part that must now survive."""

    @abstractmethod
    def check(self, folder: Path, n_told: int) -> None:
        """Assert that what a kill left can be read and holds the ``n_told`` parts."""

    @abstractmethod
    def compare(self, folder: Path, reference: Path) -> None:
        """Assert that finished work equals that of a process that was never killed."""


class Training(Job):
    """train.py with checkpoints within epochs and a rollout, resumed after each kill."""

    name = "training"

    def prepare(self) -> None:
        make_demos(self.inputs / "demos.zarr")

    def work(self, folder: Path, tell: Callable[[], None]) -> None:
        overrides = tiny_overrides(self.inputs / "demos.zarr", self.inputs / "cache")
        cfg = compose_config("train_dot_pusht", *overrides, "training.checkpoint_minutes=0")
        TrainWorkspace(cfg, folder / "run").run()

    def check(self, folder: Path, n_told: int) -> None:
        for checkpoint in (folder / "run").glob("checkpoints/[!.]*.ckpt"):
            load_checkpoint(checkpoint)

    def compare(self, folder: Path, reference: Path) -> None:
        run, whole = folder / "run", reference / "run"
        assert_equal_states(final_state(run), final_state(whole))
        assert comparable_log(run) == comparable_log(whole)
        names = [{path.name for path in (each / "checkpoints").iterdir()} for each in (run, whole)]
        assert names[0] == names[1]


class Recording(Job):
    """Episodes recorded one by one into a ReplayBuffer on the disk."""

    name = "recording"
    n_episodes = 30

    def episode(self, i: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(i)
        n_steps = 5 + i % 7
        return {
            "action": rng.normal(size=(n_steps, 2)).astype(np.float32),
            "img": rng.integers(0, 256, (n_steps, 24, 24, 3), dtype=np.uint8),
        }

    def work(self, folder: Path, tell: Callable[[], None]) -> None:
        buffer = ReplayBuffer.create_from_path(folder / "demos.zarr", mode="a")
        for i in range(buffer.n_episodes, self.n_episodes):
            buffer.add_episode(self.episode(i))
            tell()

    def check(self, folder: Path, n_told: int) -> None:
        if n_told == 0 and not (folder / "demos.zarr").exists():
            return
        buffer = ReplayBuffer.create_from_path(folder / "demos.zarr", mode="a")
        assert n_told <= buffer.n_episodes, f"{n_told} recorded, {buffer.n_episodes} there"
        for i in range(buffer.n_episodes):
            for key, values in self.episode(i).items():
                np.testing.assert_array_equal(buffer.get_episode(i)[key], values)

    def compare(self, folder: Path, reference: Path) -> None:
        self.check(folder, self.n_episodes)


class Conversion(Job):
    """A data set copied into a folder, a zip file and, in place, into other chunks."""

    name = "conversion"
    targets = ("copy.zarr", "copy.zarr.zip")

    def prepare(self) -> None:
        make_demos(self.inputs / "demos.zarr", n_episodes=12)

    def work(self, folder: Path, tell: Callable[[], None]) -> None:
        source = ReplayBuffer.copy_from_path(self.inputs / "demos.zarr")
        for name in self.targets:
            source.save_to_path(folder / name, if_exists="replace")
            tell()
        copied = ReplayBuffer.create_from_path(folder / "copy.zarr", mode="a")
        copied.set_chunks({"state": (7, 5), "action": (50, 2)})
        copied.set_compressors({"state": "disk"})
        tell()

    def check(self, folder: Path, n_told: int) -> None:
        assert all((folder / name).exists() for name in self.targets[:n_told])
        source = ReplayBuffer.copy_from_path(self.inputs / "demos.zarr")
        for path in filter(Path.exists, (folder / name for name in self.targets)):
            copied = ReplayBuffer.copy_from_path(path)
            np.testing.assert_array_equal(copied.episode_ends, source.episode_ends)
            for key, values in source.items():
                np.testing.assert_array_equal(copied[key], values)

    def compare(self, folder: Path, reference: Path) -> None:
        self.check(folder, len(self.targets))


class Caching(Job):
    """The images of a data set, decoded into the cache."""

    name = "caching"
    fields: ClassVar = {"img": Field((3, 48, 48), "rgb", "VISUAL")}

    def prepare(self) -> None:
        rng = np.random.default_rng(0)
        buffer = ReplayBuffer.create_from_path(self.inputs / "demos.zarr", mode="a")
        for _ in range(8):
            images = rng.integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)
            buffer.add_episode({"img": images, "action": np.zeros((40, 2), np.float32)})

    def store(self, folder: Path) -> ZarrStore:
        store = ZarrStore(self.inputs / "demos.zarr", folder / "cache")
        store.prepare(self.fields)
        return store

    def work(self, folder: Path, tell: Callable[[], None]) -> None:
        self.store(folder)
        tell()

    def check(self, folder: Path, n_told: int) -> None:
        images = self.store(folder).read("img", np.arange(320))
        stored = ReplayBuffer.copy_from_path(self.inputs / "demos.zarr")["img"]
        np.testing.assert_array_equal(images, np.moveaxis(stored, -1, 1))

    def compare(self, folder: Path, reference: Path) -> None:
        self.check(folder, 1)
        names = [sorted(p.name for p in (each / "cache").iterdir()) for each in (folder, reference)]
        assert names[0] == names[1], "leftovers of killed processes stay in the cache"


class Evaluation(Job):
    """eval.py with episodes in a worker process, videos and a report."""

    name = "evaluation"

    def prepare(self) -> None:
        make_demos(self.inputs / "demos.zarr")
        overrides = tiny_overrides(self.inputs / "demos.zarr", self.inputs / "cache")
        cfg = compose_config("train_dot_pusht", *overrides)
        TrainWorkspace(cfg, self.inputs / "run").run()

    def work(self, folder: Path, tell: Callable[[], None]) -> None:
        evaluate_checkpoint(
            self.inputs / "run" / "checkpoints" / "latest.ckpt",
            folder / "evaluation",
            n_episodes=4,
            n_videos=1,
            n_workers=1,
            overwrite=True,  # drops earlier results when it starts
        )

    def check(self, folder: Path, n_told: int) -> None:
        record = folder / "evaluation" / "eval_info.json"
        if record.exists():
            assert len(json.loads(record.read_text())["per_episode"]) == 4

    def compare(self, folder: Path, reference: Path) -> None:
        infos = [
            json.loads((each / "evaluation" / "eval_info.json").read_text())["per_episode"]
            for each in (folder, reference)
        ]
        assert infos[0] == infos[1]


JOBS = (Training, Recording, Conversion, Caching, Evaluation)
# A bar's usual lock is one of several processes, which each kill would leak.
tqdm.set_lock(threading.RLock())
torch.set_num_threads(1)  # threads of a parent do not live on in the processes that it forks
