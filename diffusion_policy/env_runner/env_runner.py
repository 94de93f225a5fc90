"""The one runner of simulated tasks: episodes of given starts, stepped side by side."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from diffusion_policy.agent.agent import Agent
from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.env_runner.outcomes import Outcomes
from diffusion_policy.env_runner.replay import Chunks, first_of_each_outcome, record
from diffusion_policy.env_runner.scores import count_successes, note_on_success, scores
from diffusion_policy.env_runner.space_check import check_spaces
from diffusion_policy.env_runner.starts import Group
from diffusion_policy.gym_util.vector_env import DEFAULT_TIMEOUT_S, VectorEnv, WorkerError
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util import distributed
from diffusion_policy.util.config import plain
from diffusion_policy.util.cores import usable_cores
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import write_atomically
from diffusion_policy.workspace.base_runner import BaseRunner

MAX_SLOTS = 50
"""Environments side by side unless asked otherwise: enough to fill a policy's batch."""
TRACEBACK_FILE = "environment_error.txt"


class EnvRunner(BaseRunner):
    """Scores an agent on groups of starts: ``train`` and ``test``, which are seeds, and others.

    ``train`` is for seeds that demonstrations started from: those recorded with demo_pusht.py start
    from 0, 1, ... The scripted ones that come with the project do not, so that both groups are
    fresh to a policy trained on them. Checkpoints are chosen by ``test``.

    Episodes take the slots of a :class:`VectorEnv` in the order of their starts, so the results
    do not depend on the number of workers. Policies that draw random numbers start each episode
    from its own seed, so they do not depend on ``n_envs`` either.

    Environments are built in worker processes only, at construction, so that a mistake in the
    config shows before training. Under torchrun each process plays a part of the episodes, and all
    get the results.

    Args:
        env: description of the environment, see :func:`make_env`.
        shape_meta: what the task observes and commands; checked against the environment.
        n_train, n_train_vis, train_start_seed: episodes, recorded ones among them, first seed.
        n_test, n_test_vis, test_start_seed: likewise.
        groups: further groups of starts by name, see :meth:`Group.parse`.
        n_outcome_vis: :meth:`record_outcomes` records the first so many successes and as many
            failures. All actions of a run are kept for it.
        max_steps: see the attribute; None is the environment's own limit, see :func:`make_env`.
        n_latency_steps: control steps between an observation and the first action that was chosen
            by it, see :class:`Agent`.
        n_envs: slots at most; None is :data:`MAX_SLOTS`. There are no more than episodes.
        n_workers: processes that step environments, for each process of torchrun; None is one per
            core in all.
        fps: of the recorded videos.
        output_dir: videos go to ``<output_dir>/media/<label of the run>/``; None records nothing.
        policy_seed: where torch's random numbers start in every run; policies of this package draw
            from the episodes' seeds instead.
        outcomes: how reports read the rewards, see :class:`Outcomes`.
        timeout_s: seconds that one construction, reset or step of an environment may take; then it
            is taken to hang, and the run ends.
        progress: show a progress bar, at a terminal.

    Attributes:
        episodes: of the last run, in the order of the plan.
        max_steps: length at which an episode ends without success.

    Raises:
        UserError: a setting is out of range, or shape_meta and environment do not fit.
        WorkerError: the environment cannot be built.
    """

    debug_settings: ClassVar[Mapping[str, Any]] = {
        "n_train": 1,
        "n_train_vis": 1,
        "n_test": 2,
        "n_test_vis": 1,
        "groups": None,
        "max_steps": 20,
    }

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
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        n_outcome_vis: int = 0,
        max_steps: int | None = None,
        n_latency_steps: int = 0,
        n_envs: int | None = None,
        n_workers: int | None = None,
        fps: int = 10,
        output_dir: str | Path | None = None,
        policy_seed: int = 0,
        outcomes: Mapping[str, Any] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        progress: bool = True,
    ) -> None:
        counts = dict(
            n_train=n_train,
            n_train_vis=n_train_vis,
            train_start_seed=train_start_seed,
            n_test=n_test,
            n_test_vis=n_test_vis,
            test_start_seed=test_start_seed,
            n_outcome_vis=n_outcome_vis,
            n_latency_steps=n_latency_steps,
            policy_seed=policy_seed,
        )
        sizes = dict(n_envs=n_envs, n_workers=n_workers, max_steps=max_steps, fps=fps)
        for least, values in ((0, counts), (1, sizes)):
            for name, value in values.items():
                optional = name in ("n_envs", "n_workers", "max_steps")
                _require_whole(name, value, least, optional=optional)
        if not _is_positive(timeout_s):
            raise UserError(f"task.env_runner.timeout_s is {timeout_s!r}; use seconds, more than 0")
        self.groups = _nonempty(
            Group.of_seeds("train", train_start_seed, n_train, n_train_vis),
            Group.of_seeds("test", test_start_seed, n_test, n_test_vis),
            *(Group.parse(name, entry) for name, entry in (groups or {}).items()),
        )
        self.outcomes = Outcomes.parse(outcomes)
        self.env_spec = plain(env)
        self.shape_meta = TaskSpec.parse(shape_meta)
        self.n_outcome_vis = n_outcome_vis
        self.n_latency_steps = n_latency_steps
        n_episodes = sum(len(group.starts) for group in self.groups)
        self.n_envs = min(n_envs or MAX_SLOTS, n_episodes)
        self.n_workers = n_workers
        self.fps = fps
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.policy_seed = policy_seed
        self.timeout_s = timeout_s
        self.progress = progress
        self.episodes: list[Episode] = []
        self._kept: defaultdict[int, Chunks] = defaultdict(list)
        self._folder: Path | None = None
        self._is_noted = False
        self._env = self._start_workers(max_steps)

    def _start_workers(self, max_steps: int | None) -> VectorEnv:
        with _traceback_kept(self.output_dir):
            env = VectorEnv(
                self.env_spec,
                self.n_envs,
                self.n_workers or max(1, usable_cores() // distributed.n_local_processes()),
                max_steps=max_steps,
                video_fps=self.fps,
                timeout_s=self.timeout_s,
            )
        self.max_steps = env.spaces.max_steps
        try:
            check_spaces(self.shape_meta, env.spaces)
            if self._records:
                env.require_pictures(self.groups[0].starts[0])
        except BaseException:
            env.close()
            raise
        return env

    @property
    def _records(self) -> bool:
        """Whether any episode is to be recorded."""
        asked = self.n_outcome_vis > 0 or any(group.n_vis > 0 for group in self.groups)
        return asked and self.output_dir is not None

    def run(self, agent: Agent, label: str | None = None) -> dict[str, Any]:
        """Play every episode once, and sum up.

        Args:
            agent: asked about the slots that need actions; left as it was found.
            label: folder of the videos; None counts up.

        Returns:
            For each group: ``mean_score`` (mean of the episodes' max reward), ``success_rate``
            and its 95 % interval ``success_ci_low``, ``success_ci_high``; and for each episode,
            by the name of its start, ``sim_max_reward_<name>``, ``sim_sum_reward_<name>``,
            ``sim_success_<name>`` (0 or 1), ``sim_length_<name>`` (steps), and ``sim_video_<name>``
            (path) if it was recorded. All names begin with ``<group>/``. A group has no success
            rate unless the environment told the success of each of its episodes.

        Raises:
            UserError: the policy's plan is too short for ``n_latency_steps``, its actions have the
                wrong shape or are not finite; or the environment refuses a start, or what it
                observes is not finite.
            WorkerError: an environment failed, see :class:`VectorEnv`.
        """
        agent = agent.with_latency(self.n_latency_steps)
        env = self._env_for(agent)
        self._folder = self._video_folder(label)
        self._kept.clear()
        plan = _share(self._plan(), distributed.rank(), distributed.n_processes())
        with agent.undisturbed(self.policy_seed), _traceback_kept(self.output_dir):
            played = self._play(env, agent, plan)
        self.episodes = sorted(distributed.gather(played), key=lambda episode: episode.episode_ix)
        note = note_on_success(self.episodes)
        if note is not None and not self._is_noted and distributed.is_main():
            print(note)
            self._is_noted = True
        return scores(self.episodes)

    def record_outcomes(self) -> None:
        """Record the first ``n_outcome_vis`` successes and failures of the last run.

        Their actions are played again, and ``episodes`` then name the videos. It is no part of
        :meth:`run`, so that scores can be saved before anything goes wrong with videos.

        Raises:
            WorkerError: an environment failed.
        """
        if self._folder is None or not self.n_outcome_vis:
            return
        actions = dict(distributed.gather(list(self._kept.items())))
        if distributed.is_main():  # it alone writes files
            chosen = first_of_each_outcome(self.episodes, self.n_outcome_vis)
            missing = [episode for episode in chosen if episode.video is None]
            recorded = record(self._env, missing, actions, self._folder, progress=self.progress)
            for episode in recorded:
                self.episodes[episode.episode_ix] = episode
        self.episodes = distributed.from_main(self.episodes)

    def close(self) -> None:
        """End the workers."""
        self._env.close()

    # ------------------------------------------------------------------ parts of a run

    def _env_for(self, agent: Agent) -> VectorEnv:
        """The workers, handing over what this agent reads; new ones if an error ended them."""
        if self._env.closed:
            self._env = self._start_workers(self.max_steps)
        wanted = (agent.obs_offsets, agent.n_action_steps)
        if wanted != (self._env.obs_offsets, self._env.n_action_steps):
            self._env.configure(*wanted)
        return self._env

    def _video_folder(self, label: str | None) -> Path | None:
        if self.output_dir is None:
            return None
        media = self.output_dir / "media"
        if label is not None:
            return media / label
        numbered = (media / f"rollout_{number:04d}" for number in itertools.count())
        return next(folder for folder in numbered if not folder.exists())

    def _plan(self) -> list[Episode]:
        planned = [
            (start, number < group.n_vis)
            for group in self.groups
            for number, start in enumerate(group.starts)
        ]
        episodes = [Episode(ix, start) for ix, (start, _) in enumerate(planned)]
        if self._folder is None:
            return episodes
        return [
            episode.recorded_in(self._folder) if recorded else episode
            for episode, (_, recorded) in zip(episodes, planned, strict=True)
        ]

    def _play(self, env: VectorEnv, agent: Agent, plan: Sequence[Episode]) -> list[Episode]:
        waiting = deque(plan)
        running: dict[int, Episode] = {}  # by slot
        finished: list[Episode] = []
        with self._progress_bar(len(plan)) as bar:
            while waiting or running:
                free = [slot for slot in range(env.n_envs) if slot not in running]
                starting = {slot: waiting.popleft() for slot in free[: len(waiting)]}
                if starting:
                    _begin(env, agent, starting)
                    running |= starting
                slots = sorted(running)
                observed = env.observe(slots)
                _require_finite(agent.spec, observed, [running[slot] for slot in slots])
                actions = agent.predict(observed, ids=slots).action
                if self.n_outcome_vis:
                    for slot, chunk in zip(slots, actions, strict=True):
                        # Copied, since a view would keep the whole plan in memory.
                        self._kept[running[slot].episode_ix].append(chunk.copy())
                totals = env.step(slots, actions)
                for row in np.flatnonzero(totals.done).tolist():
                    finished.append(running.pop(slots[row]).finished(totals, row))
                _report(bar, finished, totals.length[~totals.done], self.max_steps)
        return finished

    def _progress_bar(self, n_episodes: int) -> tqdm:
        # Counted in steps, for a time left that is right: episodes tend to end all at once.
        return tqdm(
            total=n_episodes * self.max_steps,
            desc="rollout",
            disable=None if self.progress and distributed.is_main() else True,
            leave=False,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]",
        )


def _require_whole(name: str, value: Any, least: int, *, optional: bool) -> None:
    if value is None and optional:
        return
    if type(value) is not int or value < least:
        raise UserError(
            f"task.env_runner.{name} is {value!r}; use a whole number, at least {least}"
            f"{', or null' if optional else ''}"
        )


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


@contextmanager
def _traceback_kept(folder: Path | None) -> Iterator[None]:
    """Write the traceback of an environment's error to ``folder``, and tell where it is."""
    try:
        yield
    except WorkerError as error:
        notes = getattr(error, "__notes__", [])
        if folder is None or not notes:
            raise
        path = folder / TRACEBACK_FILE
        try:
            write_atomically(path, "\n".join(notes).encode())
        except UserError:
            raise error from None
        raise WorkerError(f"{error}; its traceback is in {path}") from None


def _nonempty(*groups: Group) -> list[Group]:
    """The groups that have episodes.

    Raises:
        UserError: there is none, or two have the same name.
    """
    found = [group for group in groups if group.starts]
    if not found:
        raise UserError(
            "n_train=0 and n_test=0, and there are no groups: ask for at least one episode"
        )
    names = [group.name for group in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two groups are named {name!r}: rename one, or use n_{name}=0")
    videos = [f"{group.name}_{start.name}" for group in found for start in group.starts]
    if len(set(videos)) < len(videos):
        twice = next(video for video in videos if videos.count(video) > 1)
        raise UserError(f"two starts would both be recorded as {twice}.mp4: rename one of them")
    return found


def _share(plan: Sequence[Episode], rank: int, n_processes: int) -> list[Episode]:
    """The episodes that one process plays; the main one records, as it alone writes files."""
    recorded_first = sorted(plan, key=lambda episode: episode.video is None)
    n_recorded = sum(episode.video is not None for episode in plan)
    n_main = max(n_recorded, -(-len(plan) // n_processes))
    if rank == 0:
        return recorded_first[:n_main]
    return recorded_first[n_main:][rank - 1 :: n_processes - 1]


def _begin(env: VectorEnv, agent: Agent, starting: Mapping[int, Episode]) -> None:
    starts = [episode.start for episode in starting.values()]
    env.reset(list(starting), starts, [episode.video for episode in starting.values()])
    agent.reset(list(starting), seeds=[start.seed for start in starts])


def _require_finite(
    spec: TaskSpec, observed: Mapping[str, Any], episodes: Sequence[Episode]
) -> None:
    """Refuse observations that hold NaN, and name the start; ``observed`` has a row an episode."""
    for key in spec.obs:
        values = observed.get(key)
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            continue
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            start = episodes[int(np.argmin(finite))].start
            raise UserError(
                f"observation {key!r} of the environment holds NaN or infinity in the episode of "
                f"{start.label}; correct the environment"
            )


def _report(
    bar: tqdm, finished: Sequence[Episode], running_lengths: np.ndarray, max_steps: int
) -> None:
    """Move the bar; an episode that has ended counts as all the steps it might have taken."""
    if finished:
        successes = count_successes(finished)
        so_far = (
            f"{len(finished)} episodes ended"
            if successes is None
            else f"{successes} of {len(finished)} episodes succeeded"
        )
        bar.set_description_str(f"rollout, {so_far}", refresh=False)
    bar.update(len(finished) * max_steps + int(running_lengths.sum()) - bar.n)
