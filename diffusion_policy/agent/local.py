"""An agent whose policy is in this process, and how to make one from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.agent.agent import Agent
from diffusion_policy.checkpoint.saved_policy import SavedPolicy, change_settings
from diffusion_policy.model.common.inference import undisturbed
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.pytorch_util import AUTOCAST_DTYPES, resolve_device, resolve_precision


class LocalAgent(Agent):
    """Acts by a policy of this process.

    Args:
        policy: in evaluation mode, unless it acts within :meth:`undisturbed`.
        pipeline: transforms between the raw data and the policy; None is none.
        precision: of the policy's matrix products: fp32, bf16 or fp16.
        n_latency_steps: see :class:`Agent`.
        embodiment: name of the robot that acts, for a policy that was trained on several; None is
            that of the task.

    Raises:
        UserError: the policy was trained on several robots, and none of them is named; or the
            pipeline gives actions that mean something only together with what the
            policy observed for them, and the policy mixes actions of several calls.
    """

    def __init__(
        self,
        policy: BasePolicy,
        pipeline: Pipeline | None = None,
        *,
        precision: str = "fp32",
        n_latency_steps: int = 0,
        embodiment: str | None = None,
    ) -> None:
        if pipeline is not None:
            require_one_meaning(policy, pipeline)
        self.policy = policy
        self.pipeline = pipeline or Pipeline.of((), policy.shape_meta)
        act_as(policy, embodiment or self.pipeline.raw_spec.embodiment)
        self.dtype = AUTOCAST_DTYPES[precision]
        super().__init__(
            self.pipeline.raw_spec,
            obs_offsets=policy.obs_offsets,
            n_action_steps=policy.n_action_steps,
            n_actions_ahead=policy.n_actions_ahead,
            n_latency_steps=n_latency_steps,
        )

    def plan(self, obs: Mapping[str, Any], ids: Sequence[int]) -> np.ndarray:
        device = self.policy.device
        seen = self.pipeline.observe(dict(obs))
        inputs = {key: _to_device(seen[-1][key], device) for key in self.policy.shape_meta.obs}
        with (
            torch.no_grad(),
            torch.autocast(device.type, self.dtype, enabled=self.dtype is not None),
        ):
            predicted = _planned(self.policy, self.policy.predict_action(inputs, env_ids=ids))
        n_past = sum(offset < 0 for offset in self.policy.action_pred_offsets)
        return self.pipeline.inverse(predicted[:, n_past:].float().cpu().numpy(), seen)

    def _set_latency(self, n_latency_steps: int) -> None:
        if n_latency_steps and "past_action_visible" in self.policy.mixes_actions:
            raise UserError(
                f"n_latency_steps is {n_latency_steps} with policy.past_action_visible=true: the "
                "policy would remember other actions than those executed; use 0 latency steps, or "
                "a policy without visible past actions"
            )
        super()._set_latency(n_latency_steps)

    def begin(self, ids: Sequence[int] | None, seeds: Sequence[int] | None) -> None:
        self.policy.reset(ids, seeds=seeds)

    def undisturbed(self, seed: int) -> AbstractContextManager[None]:
        """Evaluation mode and no gradients; afterwards modes and random numbers are as before."""
        return undisturbed(self.policy, self.policy.device, seed)


def act_as(policy: BasePolicy, embodiment: str | None) -> None:
    """Let a policy that was trained on several robots act for the one of this name.

    Raises:
        UserError: it was, and the name is missing or not one of theirs.
    """
    names = policy.normalizer.embodiment_names
    if not names:
        return
    if embodiment not in names:
        raise UserError(
            f"the policy was trained on the robots {', '.join(names)}, but the one that acts is "
            f"{embodiment!r}; name one of them as embodiment (eval.py --embodiment, or "
            "task.embodiment in training)"
        )
    policy.embodiment = names.index(embodiment)


def require_one_meaning(policy: BasePolicy, pipeline: Pipeline) -> None:
    """Refuse a policy that takes actions apart whose meaning depends on each other.

    It may mix actions of several calls, each of which has its own frame, or skip actions of a
    chunk, each of which begins where the one before it ends.

    Raises:
        UserError: names the settings of the policy.
    """
    if pipeline.chains_actions and policy.skips_actions:
        settings = " and ".join(f"policy.{name}" for name in policy.skips_actions)
        raise UserError(
            f"task.transforms makes each action a change from the one before it, but {settings} "
            "skips actions; use return_every_n=1 and stall_skip=0, or relative actions"
        )
    if pipeline.reads_obs and policy.mixes_actions:
        settings = " and ".join(f"policy.{name}" for name in policy.mixes_actions)
        raise UserError(
            f"task.transforms makes actions relative to the current observation, but {settings} "
            "mixes actions of several observations; switch that off (alpha=0, predict_every_n=1, "
            "past_action_visible=false), or use absolute actions"
        )


def load_agent(
    checkpoint: str | Path,
    device: str = "auto",
    *,
    precision: str = "fp32",
    n_latency_steps: int = 0,
    overrides: Sequence[str] = (),
    embodiment: str | None = None,
    trust: bool = False,
) -> LocalAgent:
    """The agent of a checkpoint, ready to act.

    Args:
        checkpoint: a file written by train.py, or an exported folder.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: of the policy's matrix products: fp32, bf16, fp16, or auto for bf16 where the
            device has it.
        n_latency_steps: see :class:`Agent`.
        overrides: ``key=value`` changes to the checkpoint's config, see :func:`change_settings`.
        embodiment: see :class:`LocalAgent`.
        trust: also build a policy from outside this package that the checkpoint names, which runs
            any code that its maker chose.

    Raises:
        UserError: the checkpoint or the device cannot be used, or an override names no setting.
    """
    torch_device = resolve_device(device)
    saved = SavedPolicy.read(checkpoint)
    change_settings(saved.cfg, overrides)
    return build_agent(
        saved,
        torch_device,
        precision=precision,
        n_latency_steps=n_latency_steps,
        embodiment=embodiment,
        trust=trust,
    )


def build_agent(
    saved: SavedPolicy,
    device: torch.device,
    *,
    precision: str = "fp32",
    n_latency_steps: int = 0,
    embodiment: str | None = None,
    trust: bool = False,
) -> LocalAgent:
    """The agent of a checkpoint that is read; see :func:`load_agent`."""
    return LocalAgent(
        saved.build(device, trust=trust),
        saved.pipeline(trust=trust),
        precision=resolve_precision(precision, device),
        n_latency_steps=n_latency_steps,
        embodiment=embodiment,
    )


def _planned(policy: BasePolicy, answer: Any) -> Tensor:
    """``action_pred`` (B, T, Da) of what ``predict_action`` returned.

    Raises:
        UserError: it returned something else.
    """
    planned = answer.get("action_pred") if isinstance(answer, Mapping) else None
    if not isinstance(planned, Tensor) or planned.ndim != 3:
        raise UserError(
            f"predict_action of {type(policy).__name__} does not return {{'action': (B, Ta, Da), "
            "'action_pred': (B, T, Da)}; see diffusion_policy/policy/base_policy.py"
        )
    return planned


def _to_device(value: Any, device: torch.device) -> Tensor | list[str]:
    """On the device; uint8 as it is, other numbers as float32, text as it is."""
    if isinstance(value, list):
        return value
    tensor = torch.from_numpy(np.ascontiguousarray(value))
    return tensor.to(device, torch.uint8 if tensor.dtype == torch.uint8 else torch.float32)
