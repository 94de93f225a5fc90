"""From recorded arrays to the features and parquet columns of a LeRobot data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np

from diffusion_policy.dataset.stores.episode_writer import Rows
from diffusion_policy.dataset.stores.lerobot.features import AUTOMATIC
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.extras import import_extra

Kind = Literal["number", "text", "rgb", "depth"]

IMAGE_NAMES = ["height", "width", "channels"]
_DEPTH_INFO = {"is_depth_map": True, "depth_unit": "mm"}
_AUTOMATIC_TYPES = {key: "float32" if key == "timestamp" else "int64" for key in AUTOMATIC}


def kind_of(value: Rows | Sequence[str]) -> Kind:
    """What the values of a key are: texts, numbers, pictures or depth pictures."""
    if isinstance(value, Sequence) or value.dtype.kind in "UT":
        return "text"
    shape = value.shape[1:]
    if value.dtype == np.uint8 and len(shape) == 3 and 3 in (shape[0], shape[-1]):
        return "rgb"
    if value.dtype == np.uint16 and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)):
        return "depth"
    return "number"


def image_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of pictures (L, 3, H, W), (L, H, W, 3), (L, 1, H, W) or (L, H, W)."""
    height, width = shape[1:3] if shape[-1] == 3 and shape[1] != 3 else shape[-2:]
    return height, width


def feature_entry(
    key: str, value: Rows | Sequence[str], names: Any, *, as_video: bool
) -> dict[str, Any]:
    """The entry of ``features`` for the values of a key.

    Args:
        names: of the numbers of a vector, or None.
        as_video: whether colour pictures go to video files.

    Raises:
        UserError: the key cannot be a feature, or its values are neither numbers nor texts.
    """
    if "/" in key or not key:
        raise UserError(f"{key!r} cannot name a feature of LeRobot: rename it, without a /")
    if key in AUTOMATIC:
        raise UserError(
            f"{key!r} is a column that LeRobot fills itself: rename it, or leave it out"
        )
    kind = kind_of(value)
    if isinstance(value, Sequence) or kind == "text":
        return {"dtype": "string", "shape": [1], "names": None}
    if kind in ("rgb", "depth"):
        shape = [*image_size(value.shape), 3 if kind == "rgb" else 1]
        dtype = "video" if kind == "rgb" and as_video else "image"
        entry = {"dtype": dtype, "shape": shape, "names": list(IMAGE_NAMES)}
        return entry | ({"info": dict(_DEPTH_INFO)} if kind == "depth" else {})
    if value.dtype.kind not in "biuf":
        raise UserError(f"{key!r} has type {value.dtype}: store numbers or texts")
    return {"dtype": str(value.dtype), "shape": list(value.shape[1:]) or [1], "names": names}


def automatic_entries() -> dict[str, dict[str, Any]]:
    """The entries of the columns that every data set has."""
    return {
        key: {"dtype": dtype, "shape": [1], "names": None}
        for key, dtype in _AUTOMATIC_TYPES.items()
    }


def automatic_columns(
    length: int, fps: float, episode: int, first_index: int, task_index: np.ndarray
) -> dict[str, np.ndarray]:
    """Their values for an episode whose first step is number ``first_index`` of all."""
    steps = np.arange(length, dtype=np.int64)
    return {
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(length, episode, np.int64),
        "index": first_index + steps,
        "task_index": task_index.astype(np.int64),
    }


def png_bytes(picture: np.ndarray) -> bytes:
    """One picture, uint8 (3, H, W) or uint16 (1, H, W), as PNG."""
    pixels = np.moveaxis(picture, 0, -1)
    ok, encoded = cv2.imencode(".png", pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels)
    if not ok:
        raise UserError(f"a picture of shape {picture.shape} cannot be stored as PNG")
    return encoded.tobytes()


def arrow_table(features: Mapping[str, Mapping[str, Any]], columns: Mapping[str, Any]) -> Any:
    """A ``pyarrow.Table`` of one episode.

    Args:
        features: entries of the columns; videos have none.
        columns: (L, ...) numbers, L texts, or L PNG files as bytes.
    """
    pa = import_extra("pyarrow", "lerobot", "writing a LeRobot dataset")
    stored = {key: entry for key, entry in features.items() if entry["dtype"] != "video"}
    arrays = [_arrow_array(pa, entry, columns[key]) for key, entry in stored.items()]
    fields = [pa.field(key, array.type) for key, array in zip(stored, arrays, strict=True)]
    described = {key: _hugging_face(entry) for key, entry in stored.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": described}})}
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))


def _arrow_array(pa: Any, entry: Mapping[str, Any], values: Any) -> Any:
    if entry["dtype"] == "string":
        return pa.array(list(values), pa.string())
    if entry["dtype"] == "image":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return pa.array([{"bytes": png, "path": None} for png in values], kind)
    numbers = np.asarray(values, entry["dtype"])
    array = pa.array(numbers.reshape(-1))
    shape = entry["shape"]
    if shape == [1]:
        return array
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, shape[0])
    for size in reversed(shape):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(offsets, array)
    return array


def _hugging_face(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the datasets package calls the type of a column."""
    if entry["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": entry["dtype"], "_type": "Value"}
    shape = entry["shape"]
    if shape == [1]:
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "Sequence"}
    return {"shape": shape, "dtype": entry["dtype"], "_type": f"Array{len(shape)}D"}
