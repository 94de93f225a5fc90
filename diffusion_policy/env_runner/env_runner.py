"""The one runner of simulated tasks: episodes of given seeds, stepped side by side."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from diffusion_policy.agent.agent import Agent
from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.env_runner.replay import Chunks, first_of_each_outcome, record
from diffusion_policy.gym_util.make_env import make_env, observation_spaces
from diffusion_policy.gym_util.vector_env import VectorEnv
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util import distributed
from diffusion_policy.util.config import plain
from diffusion_policy.util.cores import usable_cores
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.statistics import wilson_interval
from diffusion_policy.workspace.base_runner import BaseRunner

MAX_SLOTS = 50
"""Environments side by side unless asked otherwise: enough to fill a policy's batch."""


class Group(NamedTuple):
    """Episodes that are scored together; the first ``n_vis`` are recorded."""

    prefix: str
    seeds: range
    n_vis: int


class EnvRunner(BaseRunner):
    """Scores a policy on two groups of seeds, ``train`` and ``test``, which are kept apart.

    ``train`` is for seeds that demonstrations started from: those recorded with demo_pusht.py start
    from 0, 1, ... The scripted ones that come with the project do not, so that both groups are
    fresh to a policy trained on them. Checkpoints are chosen by ``test``.

    Episodes take the slots of a :class:`VectorEnv` in the order of their seeds, so the results
    do not depend on the number of workers. Policies that draw random numbers start each episode
    from its own seed, so they do not depend on ``n_envs`` either.

    Under torchrun each process plays a part of the episodes, and all get the results.

    Args:
        env: description of the environment, see :func:`make_env`.
        shape_meta: what the task observes and commands; checked against the environment.
        n_train, n_train_vis, train_start_seed: episodes, recorded ones among them, first seed.
        n_test, n_test_vis, test_start_seed: likewise.
        n_outcome_vis: of the test episodes, :meth:`record_outcomes` records the first so many
            successes and as many failures. All actions of a run are kept for it.
        max_steps: length at which an episode ends without success.
        n_latency_steps: control steps between an observation and the first action that was chosen
            by it, as on a robot whose policy takes time: the policy sees observations that are so
            old, and the actions it predicted for the time in between are left out.
        n_envs: slots; None is one per episode, at most :data:`MAX_SLOTS`.
        n_workers: processes that step environments, for each process of torchrun; None is one per
            core in all.
        fps: of the recorded videos.
        output_dir: videos go to ``<output_dir>/media/<label of the run>/``; None records nothing.
        policy_seed: where torch's random numbers start in every run; policies of this package draw
            from the episodes' seeds instead.
        progress: show a progress bar.

    Attributes:
        episodes: of the last run, in the order of the plan.

    Raises:
        UserError: shape_meta and environment do not fit.
    """

    def __init__(
        self,
        env: Mapping[str, Any],
        shape_meta: Mapping[str, Any],
        *,
        n_train: int = 6,
        n_train_vis: int = 2,
        train_start_seed: int = 0,
        n_test: int = 50,
        n_test_vis: int = 4,
        test_start_seed: int = 100_000,
        n_outcome_vis: int = 0,
        max_steps: int = 300,
        n_latency_steps: int = 0,
        n_envs: int | None = None,
        n_workers: int | None = None,
        fps: int = 10,
        output_dir: str | Path | None = None,
        policy_seed: int = 0,
        progress: bool = True,
    ) -> None:
        counts = dict(
            n_train=n_train,
            n_train_vis=n_train_vis,
            n_test=n_test,
            n_test_vis=n_test_vis,
            n_outcome_vis=n_outcome_vis,
            n_latency_steps=n_latency_steps,
        )
        sizes = dict(n_envs=n_envs, n_workers=n_workers, max_steps=max_steps, fps=fps)
        for least, values in ((0, counts), (1, sizes)):
            for name, value in values.items():
                if value is not None and value < least:
                    raise UserError(f"{name}={value} makes no sense: use {least} or more")
        if n_train + n_test < 1:
            raise UserError(f"n_train={n_train} and n_test={n_test}: ask for at least one episode")
        self.env_spec = plain(env)
        self.shape_meta = TaskSpec.parse(shape_meta)
        self.groups = [
            Group("train", range(train_start_seed, train_start_seed + n_train), n_train_vis),
            Group("test", range(test_start_seed, test_start_seed + n_test), n_test_vis),
        ]
        self.n_outcome_vis = n_outcome_vis
        self.max_steps = max_steps
        self.n_latency_steps = n_latency_steps
        self.n_envs = n_envs or min(n_train + n_test, MAX_SLOTS)
        self.n_workers = n_workers
        self.fps = fps
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.policy_seed = policy_seed
        self.progress = progress
        self.episodes: list[Episode] = []
        self._vector_env: VectorEnv | None = None
        self._kept: defaultdict[int, Chunks] = defaultdict(list)
        self._folder: Path | None = None
        self._check_shapes()

    def _check_shapes(self) -> None:
        env = make_env(self.env_spec)
        found = {key: (box.shape, box.dtype) for key, box in observation_spaces(env).items()}
        action_shape = env.action_space.shape
        env.close()
        for key, expected in self.shape_meta.obs.items():
            if key not in found:
                raise UserError(
                    f"shape_meta.obs has {key!r}, which the environment does not observe; "
                    f"it observes {', '.join(found)}"
                )
            shape, dtype = found[key]
            _check(f"obs.{key}.shape", expected.shape, shape)
            if (expected.type == "rgb") != (dtype == np.uint8):
                raise UserError(
                    f"shape_meta.obs.{key}.type is {expected.type!r}, but the environment's is "
                    f"{dtype}; rgb is uint8 and everything else low_dim"
                )
        _check("action.shape", self.shape_meta.action.shape, action_shape)

    def run(self, agent: Agent, label: str | None = None) -> dict[str, Any]:
        """Play every episode once, and sum up.

        Args:
            agent: asked on the slots that need actions; left as it was found.
            label: folder of the videos; None counts up.

        Returns:
            For each prefix: ``mean_score`` (mean of the episodes' max reward), ``success_rate``
            and its 95 % interval ``success_ci_low``, ``success_ci_high``; and for each episode
            ``sim_max_reward_<seed>``, ``sim_sum_reward_<seed>``, ``sim_success_<seed>`` (0 or 1),
            ``sim_length_<seed>`` (steps), and ``sim_video_<seed>`` (path) if it was recorded. All
            names begin with ``<prefix>/``.

        Raises:
            WorkerError: an environment failed, see :class:`VectorEnv`.
            UserError: the policy's plan is too short for ``n_latency_steps``.
            ValueError: the policy's actions have the wrong shape, or are not finite.
        """
        agent = agent.with_latency(self.n_latency_steps)
        env = self._env_for(agent)
        self._folder = self._video_folder(label)
        self._kept.clear()
        plan = _share(self._plan(self._folder), distributed.rank(), distributed.n_processes())
        with agent.undisturbed(self.policy_seed):
            played = self._play(env, agent, plan)
        self.episodes = sorted(distributed.gather(played), key=lambda episode: episode.episode_ix)
        return summary(self.episodes)

    def record_outcomes(self) -> None:
        """Record the first ``n_outcome_vis`` successes and failures of the last run.

        Their actions are played again, and ``episodes`` then name the videos. It is no part of
        :meth:`run`, so that scores can be saved before anything goes wrong with pictures.

        Raises:
            WorkerError: a video cannot be written, or an environment failed.
        """
        if self._folder is None or not self.n_outcome_vis:
            return
        actions = dict(distributed.gather(list(self._kept.items())))
        if distributed.is_main():  # it alone writes files
            test = [episode for episode in self.episodes if episode.prefix == "test"]
            chosen = first_of_each_outcome(test, self.n_outcome_vis)
            missing = [episode for episode in chosen if episode.video is None]
            for episode in record(
                self._vector_env, missing, actions, self._folder, progress=self.progress
            ):
                self.episodes[episode.episode_ix] = episode
        self.episodes = distributed.from_main(self.episodes)

    def _env_for(self, agent: Agent) -> VectorEnv:
        """The workers of the last run, if they suit this policy too."""
        env = self._vector_env
        window = (agent.obs_offsets, agent.n_action_steps)
        if env and not env.closed and (env.obs_offsets, env.n_action_steps) == window:
            return env
        self.close()
        self._vector_env = VectorEnv(
            self.env_spec,
            self.n_envs,
            self.n_workers or max(1, usable_cores() // distributed.n_local_processes()),
            obs_offsets=agent.obs_offsets,
            n_action_steps=agent.n_action_steps,
            max_steps=self.max_steps,
            video_fps=self.fps,
        )
        return self._vector_env

    def _plan(self, folder: Path | None) -> list[Episode]:
        planned = [
            (group.prefix, seed, folder is not None and seed in group.seeds[: group.n_vis])
            for group in self.groups
            for seed in group.seeds
        ]
        return [
            Episode(ix, prefix, seed, folder / f"{prefix}_{seed}.mp4" if recorded else None)
            for ix, (prefix, seed, recorded) in enumerate(planned)
        ]

    def _video_folder(self, label: str | None) -> Path | None:
        if self.output_dir is None:
            return None
        media = self.output_dir / "media"
        if label is not None:
            return media / label
        numbered = (media / f"rollout_{number:04d}" for number in itertools.count())
        return next(folder for folder in numbered if not folder.exists())

    def _play(self, env: VectorEnv, agent: Agent, plan: list[Episode]) -> list[Episode]:
        waiting = deque(plan)
        running: dict[int, Episode] = {}  # by slot
        finished: list[Episode] = []
        with self._progress_bar(len(plan)) as bar:
            while waiting or running:
                free = [slot for slot in range(env.n_envs) if slot not in running]
                starting = {slot: waiting.popleft() for slot in free[: len(waiting)]}
                if starting:
                    _start(env, agent, starting)
                    running |= starting
                slots = sorted(running)
                actions = agent.predict(env.observe(slots), ids=slots).action
                if self.n_outcome_vis:
                    for slot, chunk in zip(slots, actions, strict=True):
                        self._kept[running[slot].episode_ix].append(chunk)
                totals = env.step(slots, actions)
                for row in np.flatnonzero(totals.done):
                    finished.append(running.pop(slots[row]).finished(totals, row))
                _report(bar, finished, totals.length[~totals.done], self.max_steps)
        return finished

    def _progress_bar(self, n_episodes: int) -> tqdm:
        # Counted in steps, for a time left that is right: episodes tend to end all at once.
        return tqdm(
            total=n_episodes * self.max_steps,
            desc="rollout",
            disable=not (self.progress and distributed.is_main()),
            leave=False,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]",
        )

    def close(self) -> None:
        """End the workers."""
        if self._vector_env is not None:
            self._vector_env.close()
            self._vector_env = None


def _check(name: str, expected: Sequence[int], found: Sequence[int]) -> None:
    if tuple(expected) != tuple(found):
        raise UserError(
            f"shape_meta.{name} is {list(expected)}, but the environment's is {list(found)}; "
            "change the task's shape_meta or its env"
        )


def _share(plan: Sequence[Episode], rank: int, n_processes: int) -> list[Episode]:
    """The episodes that one process plays; the main one records, as it alone writes files."""
    recorded_first = sorted(plan, key=lambda episode: episode.video is None)
    n_recorded = sum(episode.video is not None for episode in plan)
    n_main = max(n_recorded, -(-len(plan) // n_processes))
    if rank == 0:
        return recorded_first[:n_main]
    return recorded_first[n_main:][rank - 1 :: n_processes - 1]


def _start(env: VectorEnv, agent: Agent, starting: Mapping[int, Episode]) -> None:
    episodes = starting.values()
    env.reset(
        list(starting),
        [episode.seed for episode in episodes],
        video_paths=[episode.video for episode in episodes],
    )
    agent.reset(list(starting), seeds=[episode.seed for episode in episodes])


def _report(
    bar: tqdm, finished: Sequence[Episode], running_lengths: np.ndarray, max_steps: int
) -> None:
    """Move the bar; an episode that has ended counts as all the steps it might have taken."""
    successes = sum(episode.success for episode in finished)
    bar.set_description_str(
        f"rollout, {successes} of {len(finished)} episodes succeeded", refresh=False
    )
    bar.update(len(finished) * max_steps + int(running_lengths.sum()) - bar.n)


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What :meth:`EnvRunner.run` returns about ``episodes``."""
    log: dict[str, Any] = {}
    for prefix in dict.fromkeys(episode.prefix for episode in episodes):
        group = [episode for episode in episodes if episode.prefix == prefix]
        successes = sum(episode.success for episode in group)
        low, high = wilson_interval(successes, len(group))
        log[f"{prefix}/mean_score"] = float(np.mean([episode.max_reward for episode in group]))
        log[f"{prefix}/success_rate"] = successes / len(group)
        log[f"{prefix}/success_ci_low"] = low
        log[f"{prefix}/success_ci_high"] = high
        for episode in group:
            log[f"{prefix}/sim_max_reward_{episode.seed}"] = episode.max_reward
            log[f"{prefix}/sim_sum_reward_{episode.seed}"] = episode.sum_reward
            log[f"{prefix}/sim_success_{episode.seed}"] = int(episode.success)
            log[f"{prefix}/sim_length_{episode.seed}"] = episode.length
            if episode.video is not None:
                log[f"{prefix}/sim_video_{episode.seed}"] = str(episode.video)
    return log
