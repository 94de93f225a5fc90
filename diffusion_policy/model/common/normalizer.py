"""Affine normalisation of named fields, stored in the state_dict of the policy that uses it.

A policy takes and returns raw units; its normaliser, fitted on the training episodes, travels in
its checkpoint. ``normalised = x * scale + offset``, with one scale and one offset per feature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray | Tensor
STATISTICS = ("min", "max", "mean", "std", "q01", "q99")
"""Names of the statistics per feature; q01 and q99 are quantiles."""
_RANGES = {"limits": ("min", "max"), "quantile": ("q01", "q99")}


def statistics(data: Array) -> dict[str, Tensor]:
    """:data:`STATISTICS` of each of the D columns of (N, D) values, float32."""
    x = torch.as_tensor(data, dtype=torch.float32)
    # NumPy's has no upper bound on the number of values.
    low, high = np.quantile(x.numpy(force=True), [0.01, 0.99], axis=0).astype(np.float32)
    return {
        "min": x.amin(0),
        "max": x.amax(0),
        "mean": x.mean(0),
        "std": x.std(0) if len(x) > 1 else torch.zeros_like(x.mean(0)),  # of one row it is NaN
        "q01": torch.as_tensor(low, device=x.device),
        "q99": torch.as_tensor(high, device=x.device),
    }


def scale_and_offset(
    stats: Mapping[str, Tensor],
    mode: str = "limits",
    output_max: float = 1.0,
    output_min: float = -1.0,
    range_eps: float = 1e-4,
    fit_offset: bool = True,
) -> tuple[Tensor, Tensor]:
    """Scale and offset of each feature, from its statistics.

    Args:
        mode: ``limits`` maps min..max to [output_min, output_max], ``quantile`` maps q01..q99
            there, and ``gaussian`` gives mean 0 and standard deviation 1 (divisor n - 1).
        range_eps: features whose range (or deviation) is below it are shifted to the middle of
            the output and not scaled.
        fit_offset: False scales only, so that 0 stays 0.

    Raises:
        ValueError: the mode is unknown.
    """
    if mode == "gaussian":
        std = stats["std"]
        scale = 1 / torch.where(std < range_eps, 1.0, std)
        return scale, -stats["mean"] * scale if fit_offset else torch.zeros_like(std)
    if mode not in _RANGES:
        raise ValueError(f"normaliser mode is {mode!r}; use limits, quantile or gaussian")
    low, high = (stats[name] for name in _RANGES[mode])
    if fit_offset:
        span = high - low
        constant = span < range_eps
        scale = (output_max - output_min) / torch.where(constant, output_max - output_min, span)
        middle = (output_max + output_min) / 2
        return scale, torch.where(constant, middle - low, output_min - scale * low)
    reach = torch.maximum(low.abs(), high.abs())
    constant = reach < range_eps
    room = min(abs(output_min), abs(output_max))
    return room / torch.where(constant, room, reach), torch.zeros_like(reach)


def _frozen(x: Array) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(x, dtype=torch.float32).clone(), requires_grad=False)


class SingleFieldLinearNormalizer(nn.Module):
    """Normaliser of one field.

    Its state: ``scale`` and ``offset``, and under ``input_stats`` the :data:`STATISTICS` of the
    data it was fitted on. All are float32 of the shape of one value's features; a fit over several
    axes of features flattens them. States of earlier versions lack the quantiles; a normaliser
    that loads one has none.
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
        """From given numbers; ``input_stats_dict`` holds :data:`STATISTICS`, or some of them."""
        field = cls()
        field._set(scale, offset, input_stats_dict)
        return field

    @classmethod
    def create_identity(
        cls, shape: tuple[int, ...] = (1,), dtype: torch.dtype = torch.float32
    ) -> SingleFieldLinearNormalizer:
        """Leaves values as they are."""
        zeros, ones = torch.zeros(shape), torch.ones(shape)
        stats = {"min": -ones, "max": ones, "mean": zeros, "std": ones, "q01": -ones, "q99": ones}
        return cls.create_manual(ones, zeros, stats).to(dtype)

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
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        """Compute scale and offset, in float32.

        Args:
            data: (..., features), also a zarr array; the last ``last_n_dims`` axes are features.
            dtype: of the parameters, and so of what :meth:`normalize` returns.
            options: see :func:`scale_and_offset`.
        """
        data = data if isinstance(data, Tensor) else np.asarray(data)
        x = torch.as_tensor(data, dtype=torch.float32)
        n_features = int(np.prod(x.shape[x.ndim - last_n_dims :]))
        stats = statistics(x.reshape(-1, n_features))
        self._set(*scale_and_offset(stats, **options), stats)
        self.to(dtype)

    def _set(self, scale: Array, offset: Array, stats: Mapping[str, Array]) -> None:
        self.scale, self.offset = _frozen(scale), _frozen(offset)
        self.input_stats = nn.ParameterDict()
        for name in STATISTICS:
            if name in stats:
                self.input_stats[name] = _frozen(stats[name])

    @property
    def params_dict(self) -> dict[str, Any]:
        """``scale``, ``offset`` and ``input_stats``."""
        return {"scale": self.scale, "offset": self.offset, "input_stats": self.input_stats}

    def __getitem__(self, name: str) -> Any:
        """An entry of :attr:`params_dict`."""
        return self.params_dict[name]

    def normalize(self, x: Array) -> Tensor:
        """Raw (..., features), any dtype -> normalised float32 of the same shape."""
        x = torch.as_tensor(x)
        rows = self._rows(x).to(self.scale.dtype)
        return torch.addcmul(self.offset.to(x.device), rows, self.scale.to(x.device)).view(x.shape)

    def unnormalize(self, x: Array) -> Tensor:
        """Normalised (..., features) -> raw float32 of the same shape."""
        x = torch.as_tensor(x)
        raw = (self._rows(x) - self.offset.to(x.device)) / self.scale.to(x.device)
        return raw.view(x.shape)

    def _rows(self, x: Tensor) -> Tensor:
        """``x`` with its axes of features flattened, if ``scale`` has them so."""
        if self.scale.ndim == 1 and x.shape[-1:] != self.scale.shape:
            for n_axes in range(2, x.ndim + 1):
                if math.prod(x.shape[-n_axes:]) == len(self.scale):
                    return x.flatten(-n_axes)
        return x

    forward = normalize

    def get_input_stats(self) -> dict[str, Tensor]:
        """:data:`STATISTICS` of the raw data, as far as they are known."""
        return {name: value.data for name, value in self.input_stats.items()}

    def get_output_stats(self) -> dict[str, Tensor]:
        """The same statistics after normalisation."""
        return {
            name: value * self.scale if name == "std" else self.normalize(value)
            for name, value in self.get_input_stats().items()
        }

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Sizes are known from the data only, so a fresh normaliser takes them from the state.
        if prefix + "scale" in state_dict:
            scale = state_dict[prefix + "scale"]
            device, dtype = scale.device, torch.float32
            if self.scale is not None:
                device, dtype = self.scale.device, self.scale.dtype
            stats = {name: state_dict.get(f"{prefix}input_stats.{name}") for name in STATISTICS}
            known = {name: value for name, value in stats.items() if value is not None}
            self._set(scale, state_dict[prefix + "offset"], known)
            self.to(device, dtype)  # a fitted one stays where the policy is
        super()._load_from_state_dict(state_dict, prefix, *args)


class LinearNormalizer(nn.Module):
    """A :class:`SingleFieldLinearNormalizer` per field, under ``params_dict.<field>``.

    A field may have any name; where torch allows no such module, as with dots, the state_dict has
    it percent-encoded: ``params_dict.observation%2Estate``.

    A normaliser of several embodiments has no field of its own, but one normaliser per embodiment
    under ``embodiments.<name>``; :meth:`of` chooses among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.params_dict = nn.ModuleDict()
        self.embodiments = nn.ModuleDict()

    @classmethod
    def of_embodiments(cls, normalizers: Mapping[str, LinearNormalizer]) -> LinearNormalizer:
        """The normaliser of these embodiments, by name; indices follow the sorted names."""
        together = cls()
        together.embodiments.update(dict(sorted(normalizers.items())))
        return together

    @property
    def embodiment_names(self) -> tuple[str, ...]:
        """Sorted names of the embodiments; () if there are no statistics per embodiment."""
        return tuple(self.embodiments)

    def of(self, embodiment: Tensor | int | None) -> LinearNormalizer | RowNormalizer:
        """The normaliser of one batch; itself if there are no statistics per embodiment.

        Args:
            embodiment: indices (B,) into :attr:`embodiment_names`, or the one index of all rows.

        Raises:
            ValueError: there are several embodiments, and none is given.
        """
        if not self.embodiments:
            return self
        if embodiment is None:
            raise ValueError(
                f"the batch has no 'embodiment'; the normaliser needs it to choose among "
                f"{', '.join(self.embodiment_names)}"
            )
        normalizers = cast("list[LinearNormalizer]", list(self.embodiments.values()))
        if isinstance(embodiment, int):
            return normalizers[embodiment]
        return RowNormalizer(normalizers, embodiment)

    def fit(self, data: Array | Mapping[str, Array], **kwargs: Any) -> None:
        """Fit one field per entry of ``data`` (an array alone is the field ``_default``)."""
        if not isinstance(data, Mapping):
            data = {"_default": data}
        for key, value in data.items():
            self[key] = SingleFieldLinearNormalizer.create_fit(value, **kwargs)

    @property
    def fields(self) -> list[str]:
        """Names of the fields."""
        return [unquote(name) for name in self.params_dict]

    def __getitem__(self, key: str) -> SingleFieldLinearNormalizer:
        if key not in self:
            raise KeyError(
                f"the normaliser has no field {key!r}, only {sorted(self.fields)}; "
                "call set_normalizer with one fitted on this task's dataset"
            )
        return cast("SingleFieldLinearNormalizer", self.params_dict[_module_name(key)])

    def __setitem__(self, key: str, field: SingleFieldLinearNormalizer) -> None:
        self.params_dict[_module_name(key)] = field

    def __contains__(self, key: str) -> bool:
        return _module_name(key) in self.params_dict

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

    def get_input_stats(self) -> dict[str, Any]:
        """Statistics of the raw data by field; of the field ``_default`` alone if it is alone."""
        return _by_field({key: self[key].get_input_stats() for key in self.fields})

    def get_output_stats(self) -> dict[str, Any]:
        """As :meth:`get_input_stats`, after normalisation."""
        return _by_field({key: self[key].get_output_stats() for key in self.fields})

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Called before the children load: make the children that the state brings.
        for name in _children(state_dict, f"{prefix}params_dict."):
            if name not in self.params_dict:
                self.params_dict[name] = SingleFieldLinearNormalizer()
        for name in _children(state_dict, f"{prefix}embodiments."):
            if name not in self.embodiments:
                self.embodiments[name] = LinearNormalizer()
        super()._load_from_state_dict(state_dict, prefix, *args)


_TAKEN = frozenset(dir(nn.ModuleDict()))
"""Names that a field's module cannot have: they are attributes of the dict of modules."""


def _module_name(key: str) -> str:
    """The name of a field's module, which :func:`urllib.parse.unquote` turns into ``key`` again."""
    name = key.replace("%", "%25").replace(".", "%2E")
    return f"%{ord(name[0]):02X}{name[1:]}" if name in _TAKEN else name


def _by_field(stats: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    return stats["_default"] if stats.keys() == {"_default"} else stats


def _children(state_dict: Iterable[str], prefix: str) -> list[str]:
    """Names of the modules below ``prefix`` in a state_dict, sorted."""
    return sorted({k[len(prefix) :].partition(".")[0] for k in state_dict if k.startswith(prefix)})


class RowNormalizer:
    """Normalises each row of a batch with the statistics of its own embodiment.

    Args:
        normalizers: one per embodiment, of equal fields.
        rows: (B,) index into them of each row.
    """

    def __init__(self, normalizers: Sequence[LinearNormalizer], rows: Tensor) -> None:
        self.normalizers = normalizers
        self.rows = rows

    def __getitem__(self, key: str) -> RowField:
        fields = [normalizer[key] for normalizer in self.normalizers]
        return RowField(
            torch.stack([field.scale for field in fields])[self.rows],
            torch.stack([field.offset for field in fields])[self.rows],
        )

    def __contains__(self, key: str) -> bool:
        return all(key in normalizer for normalizer in self.normalizers)

    def normalize(self, x: Mapping[str, Array]) -> dict[str, Tensor]:
        """Each entry by the field of its name."""
        return {key: self[key].normalize(value) for key, value in x.items()}

    def unnormalize(self, x: Mapping[str, Array]) -> dict[str, Tensor]:
        """Inverse of :meth:`normalize`."""
        return {key: self[key].unnormalize(value) for key, value in x.items()}


class RowField:
    """One field of a :class:`RowNormalizer`.

    Args:
        scale, offset: (B, ...features).
    """

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        self.scale, self.offset = scale, offset

    def normalize(self, x: Array) -> Tensor:
        """Raw -> normalised float32 of the same shape.

        Args:
            x: (B, ..., features) of any dtype, or (B * k, ..., features) with the k entries of a
                row one after another.
        """
        x = torch.as_tensor(x)
        return torch.addcmul(self._of(self.offset, x), x.float(), self._of(self.scale, x))

    def unnormalize(self, x: Array) -> Tensor:
        """Inverse of :meth:`normalize`."""
        x = torch.as_tensor(x)
        return (x - self._of(self.offset, x)) / self._of(self.scale, x)

    def _of(self, values: Tensor, x: Tensor) -> Tensor:
        """``values`` on the device of x, in a shape that broadcasts over the axes of x."""
        values = values.repeat_interleave(len(x) // len(values), dim=0).to(x.device)
        features = values.shape[1:]
        return values.reshape(len(x), *[1] * (x.ndim - values.ndim), *features)


Normalizer = LinearNormalizer | RowNormalizer
"""What :meth:`LinearNormalizer.of` gives."""
