"""From raw observations to the inputs of networks that see one time step after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_policy.model.common.normalizer import Normalizer
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.errors import UserError, require
from diffusion_policy.util.pytorch_util import flat_steps


class Steps(NamedTuple):
    """Normalised observations of S time steps.

    Attributes:
        state: (B, S, K) all low-dim numbers of a step; None where there are none.
        images: (B, S, 3, h, w) of each camera.
    """

    state: Tensor | None
    images: list[Tensor]


class StepInputs:
    """Which observations a network sees, and how they become its inputs.

    Args:
        spec: what is observed.
        use_state: whether low-dim observations are seen where there are images.
        image_size: (height, width) that the network resizes images to; None is the size of the
            first camera.

    Attributes:
        state_keys, image_keys: what is seen, in the order of the config.
        state_dim: K.
        image_size: (height, width); (0, 0) without images.

    Raises:
        UserError: nothing is left to see, or the size is impossible.
    """

    def __init__(
        self, spec: TaskSpec, *, use_state: bool = True, image_size: Sequence[int] | None = None
    ) -> None:
        self.image_keys = spec.keys_of("VISUAL")
        low_dim = [key for key, field in spec.obs.items() if field.type == "low_dim"]
        self.state_keys = low_dim if use_state else []
        if not self.image_keys and not self.state_keys:
            raise UserError(
                f"policy.use_state is {use_state} and shape_meta.obs has no rgb key, only "
                f"{', '.join(spec.obs) or 'nothing'}; use policy.use_state=true with low-dim "
                "observations, or add images"
            )
        self.state_dim = sum(spec.obs[key].size for key in self.state_keys)
        self.image_size = _image_size(spec, self.image_keys, image_size)

    def __call__(self, obs: Mapping[str, Tensor], normalizer: Normalizer, n_times: int) -> Steps:
        """Inputs from the first ``n_times`` of raw observations {key: (B, times, ...)}."""
        states = [
            normalizer[key].normalize(flat_steps(obs[key][:, :n_times])) for key in self.state_keys
        ]
        images = [normalizer[key].normalize(obs[key][:, :n_times]) for key in self.image_keys]
        return Steps(torch.cat(states, dim=-1) if states else None, images)


def _image_size(
    spec: TaskSpec, image_keys: Sequence[str], size: Sequence[int] | None
) -> tuple[int, int]:
    if size is None:
        _, height, width = spec.obs[image_keys[0]].shape if image_keys else (0, 0, 0)
        return height, width
    is_list = isinstance(size, Sequence) and not isinstance(size, str)
    fits = is_list and len(size) == 2 and all(type(side) is int and side >= 1 for side in size)
    shown = list(size) if is_list else size
    require(fits, "policy.image_size", shown, "use [height, width], whole numbers from 1, or null")
    return int(size[0]), int(size[1])
