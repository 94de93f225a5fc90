"""Names that users of the original diffusion_policy import; the code is in dataset.stores."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer as ReplayBuffer
from diffusion_policy.dataset.stores.zarr_encoding import TARGET_CHUNK_BYTES


def get_optimal_chunks(
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    target_chunk_bytes: float = TARGET_CHUNK_BYTES,
    max_chunk_length: int | None = None,
) -> tuple[int, ...]:
    """Chunk shape of whole steps, about ``target_chunk_bytes`` large, for an array (N, ...)."""
    step_bytes = max(1, math.prod(shape[1:]) * np.dtype(dtype).itemsize)
    longest = min(shape[0], max_chunk_length or shape[0])
    return (max(1, min(longest, math.ceil(target_chunk_bytes / step_bytes))), *shape[1:])
