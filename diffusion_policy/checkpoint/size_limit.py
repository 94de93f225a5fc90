"""A bound on what building the policy of a file allocates: sizes in its config are not ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_policy.util.config import config_leaves
from diffusion_policy.util.errors import UserError

# Building makes each weight, its first values and some tables. What has no weights, such as a
# noise schedule, is small.
_SHARE = 8
_SMALL = 20_000_000
_MOST = 1_000_000  # more than any number of steps, layers or units


class SizeLimit(TorchDispatchMode):
    """Refuse to create more numbers than a policy with these weights needs.

    Example:
        with SizeLimit(source, cfg, weights):
            policy = build_policy(cfg.policy)

    Raises:
        UserError: a number of ``cfg`` is beyond a million, since not all that is counted becomes
            a tensor; or, while the policy is built, its tensors are too large.
    """

    def __init__(self, source: object, cfg: DictConfig, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for key, value in config_leaves(cfg).items():
            if isinstance(value, int) and abs(value) > _MOST:
                raise UserError(
                    f"{key} is {value} in the config of {source}, and may be {_MOST} at most; "
                    "correct it, or take another file"
                )
        self._source = source
        self._n_weights = _n_stored(weights.values())
        self._left = _SHARE * self._n_weights + _SMALL

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if not any(isinstance(each, Tensor) for each in args):
            self._left -= _n_numbers(args)
            if self._left < 0:
                raise UserError(
                    f"{self._source} has {self._n_weights} weights, and its config asks for a "
                    "policy many times as large; the sizes in its config are not those that it "
                    "was saved with"
                )
        return func(*args, **(kwargs or {}))


def _n_stored(weights: Iterable[Tensor]) -> int:
    """Numbers in memory: tensors of a file may show the same few numbers any number of times."""
    weights = [each for each in weights if each.device.type != "meta"]
    storages = [each.untyped_storage() for each in weights]
    parts = sorted((each.data_ptr(), each.data_ptr() + each.nbytes()) for each in storages)
    n_bytes = end = 0
    for first, after in parts:
        n_bytes += max(0, after - max(first, end))
        end = max(end, after)
    shown = sum(each.numel() for each in weights)
    return min(shown, n_bytes // min((each.itemsize for each in weights), default=1))


def _n_numbers(args: Sequence[Any]) -> int:
    """Numbers that a function creates: of a shape, or up to a count."""
    if args and isinstance(args[0], Sequence):
        return math.prod(args[0]) if all(isinstance(each, int) for each in args[0]) else 0
    return int(max((each for each in args if isinstance(each, int | float)), default=0))
