"""Which format a data set on the disk has, and how to write another one like it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy.dataset.store_origin import metadata_of
from diffusion_policy.dataset.stores.hdf5_file import is_hdf5
from diffusion_policy.dataset.stores.lerobot.groot import MODALITY
from diffusion_policy.dataset.stores.lerobot.info import is_lerobot, read_info
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import read_json

if TYPE_CHECKING:
    from diffusion_policy.dataset.convert import Kind, Target
    from diffusion_policy.dataset.stores.episode_store import EpisodeStore


def format_of(path: str | Path) -> Kind:
    """The format in which an edited data set is written, by default that of the source.

    Raises:
        UserError: it is one that is only read.
    """
    if is_hdf5(path):
        raise UserError(f"{path} is HDF5, which is only read: choose a format with --to")
    if not is_lerobot(Path(path)):
        return "zarr"
    if (Path(path) / MODALITY).is_file():
        return "groot"
    version = read_info(Path(path))["codebase_version"]
    return "lerobot-v3.0" if version == "v3.0" else "lerobot-v2.1"


def name_of_format(path: str | Path) -> str:
    """The name of a data set's format, for people."""
    return "HDF5" if is_hdf5(path) else format_of(path)


def usual_target(
    target: Target,
    store: EpisodeStore,
    path: str | Path,
    features: Collection[str],
    *,
    codec: str | None,
) -> Target:
    """The target with what the source has: its codec, pictures in PNG, and modality.json.

    Args:
        target: what was asked for.
        store: the source.
        path: of the source.
        features: keys that are written.
        codec: the one that was asked for; None for that of the source.
    """
    metadata = metadata_of(store)
    if metadata is None or target.kind == "zarr":
        return target
    pictures = [f for f in metadata.features.values() if f.is_image and not f.is_depth]
    codecs = {str(f.info.get("video.codec")) for f in pictures if f.dtype == "video"}
    if codec is None and len(codecs) == 1 and target.encoding and target.kind != "groot":
        found = codecs.pop()
        if found in ("av1", "h264", "hevc"):
            target = replace(target, encoding=replace(target.encoding, codec=found))
    if pictures and all(f.dtype == "image" for f in pictures) and target.kind != "groot":
        target = replace(target, lossless=codec is None)
    stored = Path(path) / MODALITY
    if target.kind == "groot" and target.modality is None and stored.is_file():
        modality = read_json(stored, {}, "write it again")
        if _fits(modality, features):
            target = replace(target, modality=modality)
    return target


def _fits(modality: Any, keys: Collection[str]) -> bool:
    """Whether a modality still names what there is, after keys were renamed."""
    parts = [
        part for kind in ("state", "action", "video") for part in modality.get(kind, {}).values()
    ]
    return all(part.get("original_key", "") in keys for part in parts)
