"""The images of one camera of a LeRobot dataset that are pictures in its parquet files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffusion_policy.dataset.file_digests import file_digests
from diffusion_policy.dataset.image_cache import ImageSource
from diffusion_policy.dataset.stores.lerobot.data_files import data_files, read_pictures
from diffusion_policy.dataset.stores.lerobot.metadata import LeRobotMetadata
from diffusion_policy.dataset.video.frame_reader import Change
from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.util.threads import run_in_threads

_FORMATS = ("PNG", "JPEG")
_DECODER_VERSION = "1"  # part of the cache key: raise it when pixels change


class PictureSource(ImageSource):
    """Pictures of all steps, which lie packed many together.

    Depth pictures are uint16.

    Args:
        key: of the feature.
        cache_dir: where digests of the files are remembered.
        change: of each image, to ``changed_shape``.
    """

    is_random = False

    def __init__(
        self,
        metadata: LeRobotMetadata,
        key: str,
        cache_dir: Path,
        change: Change | None = None,
        changed_shape: tuple[int, ...] | None = None,
    ) -> None:
        feature = metadata.features[key]
        self.n = int(metadata.episode_ends[-1])
        self.dtype = np.dtype(np.uint16 if feature.is_depth else np.uint8)
        self._size = feature.image_shape[1:]
        self.shape = changed_shape or (1 if feature.is_depth else 3, *self._size)
        self._change = change
        self._metadata, self._key, self._cache_dir = metadata, key, cache_dir

    def fill(self, out: np.ndarray, desc: str) -> None:
        """See :class:`ImageSource`."""
        with tqdm(total=self.n, desc=desc, disable=None) as progress:
            for first, pictures in read_pictures(self._metadata, self._key):

                def decode(row: int, first: int = first, pictures: list = pictures) -> None:
                    out[first + row] = self._decode(pictures[row], first + row)

                run_in_threads(decode, range(len(pictures)))
                progress.update(len(pictures))

    def made_from(self) -> str:
        """See :class:`ImageSource`."""
        files = [path for path, _, _ in data_files(self._metadata)]
        lengths = [episode.length for episode in self._metadata.episodes]
        return repr((_DECODER_VERSION, file_digests(files, self._cache_dir), lengths))

    def _decode(self, content: bytes, step: int) -> np.ndarray:
        """(C, H, W) of one picture; its size is checked before its pixels are unpacked."""
        where = f"{self._metadata.root}: {self._key!r} at step {step}"
        try:
            with Image.open(BytesIO(content), formats=_FORMATS) as picture:
                if (picture.height, picture.width) != tuple(self._size):
                    raise UserError(
                        f"{where} is {picture.height} x {picture.width} pixels, but meta/info.json "
                        f"says {self._size[0]} x {self._size[1]}; correct it there"
                    )
                if self.dtype == np.uint16:
                    depth = np.asarray(picture)
                    if depth.ndim != 2 or depth.dtype.kind not in "ui" or depth.max() >= 2**16:
                        raise UserError(f"{where} is no depth picture of 16 bits; record it as one")
                    return depth.astype(np.uint16)[None]
                image = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
        except UserError:
            raise
        except Exception as error:  # Pillow raises all kinds for damaged files
            raise UserError(
                f"{where} is no whole PNG or JPEG ({one_line(error)}): fetch the data set again"
            ) from error
        return image if self._change is None else self._change(np.ascontiguousarray(image))
