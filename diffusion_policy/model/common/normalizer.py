"""Affine normalisation of named fields, stored in the state_dict of the policy that uses it.

A policy takes and gives raw units; its normaliser, fitted on the training episodes, travels in
its checkpoint. ``normalised = x * scale + offset``, a scale and an offset a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray | Tensor
_STATISTICS = ("min", "max", "mean", "std")


def _frozen(x: Array) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(x, dtype=torch.float32).clone(), requires_grad=False)


class SingleFieldLinearNormalizer(nn.Module):
    """Normaliser of one field.

    Its state: ``scale`` and ``offset``, and under ``input_stats`` the min, max, mean and std of
    the data it was fitted on. All are float32 of the shape of one value's features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("scale", None)
        self.register_parameter("offset", None)
        self.input_stats = nn.ParameterDict()

    @classmethod
    def create_manual(
        cls, scale: Array, offset: Array, input_stats_dict: Mapping[str, Array]
    ) -> SingleFieldLinearNormalizer:
        """From given numbers; ``input_stats_dict`` holds min, max, mean and std."""
        field = cls()
        field._set(scale, offset, input_stats_dict)
        return field

    @classmethod
    def create_identity(cls, shape: tuple[int, ...] = (1,)) -> SingleFieldLinearNormalizer:
        """Leaves values as they are."""
        zeros, ones = torch.zeros(shape), torch.ones(shape)
        statistics = {"min": -ones, "max": ones, "mean": zeros, "std": ones}
        return cls.create_manual(ones, zeros, statistics)

    @classmethod
    def create_fit(cls, data: Array, **kwargs: Any) -> SingleFieldLinearNormalizer:
        """Fitted on ``data``; see :meth:`fit`."""
        field = cls()
        field.fit(data, **kwargs)
        return field

    def fit(
        self,
        data: Array,
        last_n_dims: int = 1,
        mode: str = "limits",
        output_max: float = 1.0,
        output_min: float = -1.0,
        range_eps: float = 1e-4,
        fit_offset: bool = True,
    ) -> None:
        """Compute scale and offset.

        Args:
            data: (..., features); the last ``last_n_dims`` axes are features, flattened.
            mode: ``limits`` maps the data's range to [output_min, output_max]; ``gaussian`` to
                mean 0 and standard deviation 1 (divisor n - 1).
            range_eps: features whose range (or deviation) is below it are shifted to the middle
                of the output and not scaled.
            fit_offset: False scales only, so that 0 stays 0.
        """
        x = torch.as_tensor(data, dtype=torch.float32)
        n_features = int(np.prod(x.shape[x.ndim - last_n_dims :]))
        x = x.reshape(-1, n_features)
        low, high = x.amin(0), x.amax(0)
        mean, std = x.mean(0), x.std(0)
        if mode == "limits" and fit_offset:
            span = high - low
            constant = span < range_eps
            scale = (output_max - output_min) / torch.where(constant, output_max - output_min, span)
            offset = torch.where(
                constant, (output_max + output_min) / 2 - low, output_min - scale * low
            )
        elif mode == "limits":
            reach = torch.maximum(low.abs(), high.abs())
            constant = reach < range_eps
            room = min(abs(output_min), abs(output_max))
            scale = room / torch.where(constant, room, reach)
            offset = torch.zeros_like(mean)
        elif mode == "gaussian":
            scale = 1 / torch.where(std < range_eps, 1.0, std)
            offset = -mean * scale if fit_offset else torch.zeros_like(mean)
        else:
            raise ValueError(f"normaliser mode is {mode!r}; use 'limits' or 'gaussian'")
        self._set(scale, offset, {"min": low, "max": high, "mean": mean, "std": std})

    def _set(self, scale: Array, offset: Array, statistics: Mapping[str, Array]) -> None:
        self.scale, self.offset = _frozen(scale), _frozen(offset)
        for name in _STATISTICS:
            self.input_stats[name] = _frozen(statistics[name])

    def normalize(self, x: Array) -> Tensor:
        """Raw (..., features), any dtype -> normalised float32 of the same shape."""
        x = torch.as_tensor(x)
        return torch.addcmul(self.offset.to(x.device), x.float(), self.scale.to(x.device))

    def unnormalize(self, x: Array) -> Tensor:
        """Normalised (..., features) -> raw float32 of the same shape."""
        x = torch.as_tensor(x)
        return (x - self.offset.to(x.device)) / self.scale.to(x.device)

    forward = normalize

    def get_input_stats(self) -> dict[str, Tensor]:
        """min, max, mean and std of the raw data."""
        return {name: self.input_stats[name].data for name in _STATISTICS}

    def get_output_stats(self) -> dict[str, Tensor]:
        """min, max, mean and std after normalisation."""
        stats = self.get_input_stats()
        moved = {name: self.normalize(stats[name]) for name in ("min", "max", "mean")}
        return {**moved, "std": stats["std"] * self.scale}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Sizes are known from the data only, so a fresh normaliser takes them from the state.
        if prefix + "scale" in state_dict:
            scale = state_dict[prefix + "scale"]
            device = scale.device if self.scale is None else self.scale.device
            self._set(
                scale,
                state_dict[prefix + "offset"],
                {name: state_dict[f"{prefix}input_stats.{name}"] for name in _STATISTICS},
            )
            self.to(device)  # a fitted one stays where the policy is
        super()._load_from_state_dict(state_dict, prefix, *args)


class LinearNormalizer(nn.Module):
    """A :class:`SingleFieldLinearNormalizer` a field, under ``params_dict.<field>``."""

    def __init__(self) -> None:
        super().__init__()
        self.params_dict = nn.ModuleDict()

    def fit(self, data: Array | Mapping[str, Array], **kwargs: Any) -> None:
        """Fit one field an entry of ``data`` (an array alone is the field ``_default``)."""
        if not isinstance(data, Mapping):
            data = {"_default": data}
        for key, value in data.items():
            self.params_dict[key] = SingleFieldLinearNormalizer.create_fit(value, **kwargs)

    def __getitem__(self, key: str) -> SingleFieldLinearNormalizer:
        if key not in self.params_dict:
            raise KeyError(
                f"the normaliser has no field {key!r}, only {sorted(self.params_dict)}; "
                "call set_normalizer with one fitted on this task's dataset"
            )
        return self.params_dict[key]

    def __setitem__(self, key: str, field: SingleFieldLinearNormalizer) -> None:
        self.params_dict[key] = field

    def __contains__(self, key: str) -> bool:
        return key in self.params_dict

    def normalize(self, x: Array | Mapping[str, Array]) -> Any:
        """Each entry by the field of its name; a bare array by ``_default``."""
        if isinstance(x, Mapping):
            return {key: self[key].normalize(value) for key, value in x.items()}
        return self["_default"].normalize(x)

    def unnormalize(self, x: Array | Mapping[str, Array]) -> Any:
        """Inverse of :meth:`normalize`."""
        if isinstance(x, Mapping):
            return {key: self[key].unnormalize(value) for key, value in x.items()}
        return self["_default"].unnormalize(x)

    forward = normalize

    def get_input_stats(self) -> dict[str, dict[str, Tensor]]:
        return {key: field.get_input_stats() for key, field in self.params_dict.items()}

    def get_output_stats(self) -> dict[str, dict[str, Tensor]]:
        return {key: field.get_output_stats() for key, field in self.params_dict.items()}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Called before the children load: make the fields that the state brings.
        start = prefix + "params_dict."
        for name in state_dict:
            if name.startswith(start) and name.endswith(".scale"):
                key = name[len(start) : -len(".scale")]
                if key not in self.params_dict:
                    self.params_dict[key] = SingleFieldLinearNormalizer()
        super()._load_from_state_dict(state_dict, prefix, *args)
