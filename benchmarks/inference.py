"""Inference: one chunk of actions, the latency of a control loop, and whole evaluations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.case import Options, Work, case, each
from benchmarks.policies import DOT, SMALL_UNET, TRANSFORMER, UNET, learner
from diffusion_policy.agent.local import LocalAgent
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.env.pusht.simulation import CONTROL_HZ
from diffusion_policy.policy.base_policy import BasePolicy

_PRETRAINED = Path(__file__).parents[1] / "data" / "pretrained" / "dot_pusht"
_N_CHECKED = 2  # rows that the check also computes alone
_ON_IMAGES = ("task=pusht_image", "policy.backbone_weights=null")


@each(
    case(
        "inference.dot_1",
        "DOT, actions for one observation",
        "ms",
        reference=4,
        target=2,
        arguments={"config_name": DOT, "n_rows": 1},
    ),
    case(
        "inference.dot_50",
        "DOT, actions for 50 observations",
        "ms",
        reference=40,
        target=2,
        arguments={"config_name": DOT, "n_rows": 50},
    ),
    case(
        "inference.dot_1_compiled",
        "DOT, actions for one observation, compiled",
        "ms",
        reference=4,
        target=2,
        arguments={"config_name": DOT, "n_rows": 1, "compiled": True},
    ),
    case(
        "inference.unet_1",
        "diffusion U-Net, 100 DDPM steps, one observation",
        "s",
        reference=4.6,
        arguments={"config_name": UNET, "n_rows": 1},
    ),
    case(
        "inference.unet_56",
        "diffusion U-Net, 100 DDPM steps, 56 observations",
        "s",
        reference=18,
        max_repeats=3,
        arguments={"config_name": UNET, "n_rows": 56},
    ),
    case(
        "inference.unet_ddim_1",
        "diffusion U-Net, 10 DDIM steps, one observation, against 100 DDPM steps",
        "s",
        reference=4.6,
        target=20,
        arguments={"config_name": UNET, "n_rows": 1, "scheduler": "ddim"},
    ),
    case(
        "inference.unet_ddim5_1",
        "diffusion U-Net, 5 DDIM steps, one observation, against 100 DDPM steps",
        "s",
        reference=4.6,
        target=20,
        arguments={"config_name": UNET, "n_rows": 1, "scheduler": "ddim", "n_passes": 5},
    ),
    case(
        "inference.unet_small_ddim_1",
        "small U-Net (4.6 M), 10 DDIM steps, one observation, against 100 DDPM steps of the large",
        "s",
        reference=4.6,
        target=20,
        arguments={"config_name": SMALL_UNET, "n_rows": 1, "scheduler": "ddim"},
    ),
    case(
        "inference.transformer_1",
        "diffusion transformer, 100 DDPM steps, one observation",
        "s",
        reference=0.89,
        arguments={"config_name": TRANSFORMER, "n_rows": 1},
    ),
    case(
        "inference.transformer_56",
        "diffusion transformer, 100 DDPM steps, 56 observations",
        "s",
        reference=9.2,
        max_repeats=3,
        arguments={"config_name": TRANSFORMER, "n_rows": 56},
    ),
    case(
        "inference.transformer_ddim_1",
        "diffusion transformer, 10 DDIM steps, one observation, against 100 DDPM steps",
        "s",
        reference=0.89,
        target=20,
        arguments={"config_name": TRANSFORMER, "n_rows": 1, "scheduler": "ddim"},
    ),
    case(
        "inference.transformer_ddim5_1",
        "diffusion transformer, 5 DDIM steps, one observation, against 100 DDPM steps",
        "s",
        reference=0.89,
        target=20,
        arguments={"config_name": TRANSFORMER, "n_rows": 1, "scheduler": "ddim", "n_passes": 5},
    ),
)
def chunk(
    options: Options,
    config_name: str,
    n_rows: int,
    scheduler: str = "ddpm",
    n_passes: int | None = None,
    compiled: bool = False,
) -> Iterator[Work]:
    policy, obs = _ready(options, config_name, n_rows, scheduler, n_passes)
    if compiled:
        policy.compile_for_inference()

    def check(actions: Tensor) -> None:
        for row in range(min(_N_CHECKED, n_rows)):
            alone = {key: value[row : row + 1] for key, value in obs.items()}
            torch.testing.assert_close(
                _actions(policy, alone, seeds=[row]), actions[row : row + 1], rtol=1e-4, atol=0.05
            )

    # Each run resets the random numbers and the images and plans that DOT keeps.
    yield Work(lambda: _actions(policy, obs, seeds=list(range(n_rows))), check)


def _ready(
    options: Options,
    config_name: str,
    n_rows: int,
    scheduler: str = "ddpm",
    n_passes: int | None = None,
) -> tuple[BasePolicy, dict[str, Tensor]]:
    """Return a policy in evaluation mode, and raw observations of random time steps.

    Args:
        n_passes: network passes per chunk; None leaves the number to the scheduler's config.
    """
    overrides = [] if config_name == DOT else [f"policy/noise_scheduler={scheduler}"]
    if options.tiny and config_name != DOT:
        n_passes = 3
    if n_passes is not None:
        overrides.append(f"policy.noise_scheduler.num_inference_steps={n_passes}")
    trained = learner(options, config_name, *overrides)
    policy = trained.policy.eval()
    policy.prepare_for_inference()
    return policy, trained.batch(n_rows)["obs"]


def _actions(policy: BasePolicy, obs: dict[str, Tensor], seeds: list[int]) -> Tensor:
    """Return actions (B, Ta, Da) of episodes that start now."""
    rows = range(len(seeds))
    policy.reset(rows, seeds)
    return policy.predict_action(obs, env_ids=rows)["action"]


@case("inference.dot_images_50", "DOT, a control step of 50 environments on images", "ms")
def images(options: Options) -> Iterator[Work]:
    """Play steps of demonstrations: each step brings one new image and repeats two earlier ones."""
    trained = learner(options, DOT, *_ON_IMAGES)
    policy = trained.policy.eval()
    policy.prepare_for_inference()
    n_steps, n_rows = options.size(12, 2), options.size(50, _N_CHECKED)
    starts = np.random.default_rng(0).integers(trained.dataset.store.n_steps - n_steps, size=n_rows)
    # The first step also stands for the steps before it.
    seen = [np.maximum(0, step + np.array(policy.obs_offsets)) for step in range(n_steps)]
    observations = [
        {
            key: torch.from_numpy(trained.dataset.store.read(key, starts[:, None] + steps))
            for key in trained.dataset.spec.obs
        }
        for steps in seen
    ]

    def run() -> Tensor:
        policy.reset()  # drops the kept images and plans
        return [policy.predict_action(obs)["action"] for obs in observations][-1]

    def check(actions: Tensor) -> None:
        policy.reset()
        for obs in observations:
            few = {key: value[:_N_CHECKED] for key, value in obs.items()}
            policy.features.clear()
            plain = policy.predict_action(few)["action"]
        torch.testing.assert_close(actions[:_N_CHECKED], plain, rtol=1e-4, atol=0.05)

    yield Work(run, check, n_steps)


@each(
    case(
        "inference.loop_p50_dot",
        f"DOT, {CONTROL_HZ} Hz loop, median latency in 10,000 steps",
        "ms latency",
        max_repeats=1,
        arguments={"config_name": DOT, "share": 0.5},
    ),
    case(
        "inference.loop_p99_dot",
        f"DOT, {CONTROL_HZ} Hz loop, 99th percentile in 10,000 steps",
        "ms latency",
        max_repeats=1,
        arguments={"config_name": DOT, "share": 0.99},
    ),
    case(
        "inference.loop_p50_transformer",
        f"diffusion transformer (DDIM), {CONTROL_HZ} Hz loop, median latency in 10,000 steps",
        "ms latency",
        max_repeats=1,
        arguments={"config_name": TRANSFORMER, "share": 0.5},
    ),
    case(
        "inference.loop_p99_transformer",
        f"diffusion transformer (DDIM), {CONTROL_HZ} Hz loop, 99th percentile in 10,000 steps",
        "ms latency",
        max_repeats=1,
        arguments={"config_name": TRANSFORMER, "share": 0.99},
    ),
)
def control_loop(options: Options, config_name: str, share: float) -> Iterator[Work]:
    """Time from an observation to a chunk of actions; steps within a chunk take no time.

    The loop does not wait for the next control step, because 10,000 steps would take 17 minutes.
    A real loop keeps its rate if the latency stays below a tenth of a second.
    """
    policy, obs = _ready(options, config_name, n_rows=1, scheduler="ddim")
    n_steps = options.size(10_000, 20)
    first: list[Tensor] = []

    def run() -> float:
        policy.reset([0], [0])
        latencies = []
        for number in range(0, n_steps, policy.n_action_steps):
            start = time.perf_counter()
            actions = policy.predict_action(obs, env_ids=[0])["action"]
            latencies.append(time.perf_counter() - start)
            if number == 0:
                first[:] = [actions]
        return float(np.quantile(latencies, share)) * 1e3

    def check(figure: float) -> None:
        policy.reset([0], [0])
        again = policy.predict_action(obs, env_ids=[0])["action"]
        torch.testing.assert_close(again, first[0])
        assert figure >= 0

    yield Work(run, check)


@each(
    case(
        "inference.episodes_keypoints",
        "1000 episodes on keypoints, DOT with the weights of data/pretrained",
        "s",
        target=300,
        max_repeats=1,
        arguments={"on_images": False},
    ),
    case(
        "inference.episodes_images",
        "the same episodes, DOT on images computes along",
        "s",
        target=1200,
        max_repeats=1,
        arguments={"on_images": True},
    ),
)
def episodes(options: Options, on_images: bool) -> Iterator[Work]:
    """Play episodes with a trained policy, so that they end at success and seldom stand still."""
    policy, config = load_policy(_PRETRAINED)
    if on_images:
        looking = learner(options, DOT, *_ON_IMAGES).policy.eval()
        looking.prepare_for_inference()
        policy = _Companion(policy, looking)
    n_episodes = options.size(1000, 2)
    runner = hydra.utils.instantiate(
        config.task.env_runner,
        env={"kwargs": {"obs": list(policy.shape_meta.obs)}},
        shape_meta=policy.shape_meta,
        n_train=0,
        n_train_vis=0,
        n_test=n_episodes,
        n_test_vis=0,
        max_steps=options.size(300, 3),
    )

    def check(log: dict) -> None:
        lengths = [value for key, value in log.items() if key.startswith("test/sim_length_")]
        assert len(lengths) == n_episodes

    with runner:
        agent = LocalAgent(policy)
        yield Work(lambda: runner.run(agent), check)


class _Companion(nn.Module):
    """Act as ``leader``, while ``other`` also computes actions for the same observations."""

    def __init__(self, leader: BasePolicy, other: BasePolicy) -> None:
        super().__init__()
        self.leader, self.other = leader, other
        both = {**leader.shape_meta.obs, **other.shape_meta.obs}
        self.shape_meta = replace(leader.shape_meta, obs=both)

    def __getattr__(self, name: str) -> Any:
        """Take all other attributes from the leader."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.leader, name)

    def reset(self, *args: Any, **kwargs: Any) -> None:
        self.leader.reset(*args, **kwargs)
        self.other.reset(*args, **kwargs)

    def predict_action(self, obs: dict[str, Tensor], env_ids: Sequence[int]) -> dict[str, Tensor]:
        self.other.predict_action(obs, env_ids)
        return self.leader.predict_action(obs, env_ids)
