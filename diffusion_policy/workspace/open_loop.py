"""A policy's actions beside those of recorded episodes, at the observations of the recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.model.common.inference import undisturbed
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.frames import even_steps
from diffusion_policy.workspace.learner import to_device
from diffusion_policy.workspace.measures import acting_for

N_EPISODES = 3
N_FRAMES = 6
_MAX_STEPS = 1000


@dataclass
class OpenLoopEpisode:
    """One recorded episode of N steps.

    Attributes:
        number: of the episode among those compared, from 1.
        recorded, predicted: (N, Da) actions in the policy's units; NaN where there is none.
        chunk_steps: steps at which the policy was asked.
        frames: (step, image (H, W, 3) uint8) at even distances, by observation.
    """

    number: int
    recorded: np.ndarray
    predicted: np.ndarray
    chunk_steps: list[int] = field(default_factory=list)
    frames: dict[str, list[tuple[int, np.ndarray]]] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Mean squared error over the steps that have both actions, units squared."""
        return float(np.nanmean(np.square(self.predicted - self.recorded)))


def open_loop(
    policy: BasePolicy, dataset: BaseDataset, device: torch.device, seed: int
) -> list[OpenLoopEpisode]:
    """Ask the policy along the first episodes of ``dataset``, chunk after chunk.

    It sees the recorded observations, so its errors do not add up. The policy is left as it was.

    Returns:
        At most :data:`N_EPISODES`; none where the dataset does not tell its episodes.
    """
    samples = [s[:_MAX_STEPS] for s in dataset.episode_samples() if len(s)][:N_EPISODES]
    action_dim = policy.shape_meta.action.shape[0]
    episodes = [
        OpenLoopEpisode(i, *np.full((2, len(s), action_dim), np.nan))
        for i, s in enumerate(samples, start=1)
    ]
    longest = max((len(s) for s in samples), default=0)
    stride = _executed(policy)[-1] + 1
    with undisturbed(policy, device, seed):
        ids = list(range(len(samples)))
        for start in range(0, longest, stride):
            rows = [i for i, s in enumerate(samples) if start < len(s)]
            index = BatchIndex(np.array([samples[i][start] for i in rows]), seed)
            batch = to_device(dataset.__getitems__(index), device)
            # Each chunk is that of a new episode: nothing is averaged, skipped or followed.
            policy.reset(ids, seeds=ids)
            with acting_for(policy, batch["embodiment"]):
                chunk = policy.predict_action(batch["obs"], env_ids=rows)["action_pred"]
            _note([episodes[i] for i in rows], start, chunk, batch, policy)
        policy.reset()
    return episodes


def _note(
    episodes: Sequence[OpenLoopEpisode],
    start: int,
    chunk: Tensor,
    batch: Batch,
    policy: BasePolicy,
) -> None:
    """Write down what one chunk (B, T, Da) executes in each episode, and what was recorded."""
    offsets = policy.window.action_offsets
    executed = _executed(policy)
    rows = [policy.action_pred_offsets.index(k) for k in executed]
    for row, episode in enumerate(episodes):
        episode.chunk_steps.append(start)
        left = len(episode.recorded) - start
        for k, action in zip(executed, chunk[row, rows].float().cpu().numpy(), strict=True):
            if k < left:
                episode.predicted[start + k] = action
        for k in range(min(left, executed[-1] + 1)):
            if k in offsets and not batch["action_is_pad"][row, offsets.index(k)]:
                recorded = batch["action"][row, offsets.index(k)]
                episode.recorded[start + k] = recorded.cpu().numpy()
        if start in _frame_steps(len(episode.recorded), executed[-1] + 1):
            now = policy.window.obs_offsets.index(0)
            for key in _cameras(policy.shape_meta):
                image = batch["obs"][key][row, now].cpu().numpy().transpose(1, 2, 0)
                episode.frames.setdefault(key, []).append((start, image))


def _executed(policy: BasePolicy) -> list[int]:
    """Steps, from now on, of the actions that a chunk executes; some may be left out."""
    ahead = [offset for offset in policy.action_pred_offsets if offset >= 0]
    return ahead[: policy.n_action_steps]


def _frame_steps(length: int, stride: int) -> set[int]:
    """Some of the steps at which the policy is asked, at even distances."""
    return {chunk * stride for chunk in even_steps((length - 1) // stride, N_FRAMES)}


def _cameras(spec: TaskSpec) -> list[str]:
    return [key for key, field in spec.obs.items() if field.type == "rgb"]
