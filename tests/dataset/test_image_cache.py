from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.dataset import image_cache
from diffusion_policy.dataset.file_digests import file_digests
from diffusion_policy.dataset.image_cache import ImageSource, cached_images, check_cache
from diffusion_policy.util.errors import UserError


class Counted(ImageSource):
    """Ten images of one colour; counts how often they are decoded."""

    def __init__(self, colour: int = 1, is_random: bool = True) -> None:
        self.n, self.shape, self.is_random = 10, (3, 4, 5), is_random
        self.colour, self.times = colour, 0

    def fill(self, out: np.ndarray, desc: str) -> None:
        self.times += 1
        out[...] = self.colour

    def made_from(self) -> str:
        return str(self.colour)


def test_images_are_decoded_once_for_the_disk(tmp_path, capsys):
    source = Counted()
    for _ in range(2):
        images = cached_images(source, "a/b", "disk", tmp_path)
        assert isinstance(images, np.memmap)
        assert (images.shape, images.max()) == ((10, 3, 4, 5), 1)
    assert source.times == 1
    assert capsys.readouterr().out.count("decoding 10 images") == 1
    other = cached_images(Counted(colour=2), "a/b", "disk", tmp_path)
    assert other is not None
    assert other.max() == 2
    assert len(list(tmp_path.iterdir())) == 2  # and none of them in a folder a


def test_memory_leaves_no_file(tmp_path):
    images = cached_images(Counted(), "a", "memory", tmp_path)
    assert images is not None
    assert images.max() == 1
    assert not list(tmp_path.iterdir())


def test_none_decodes_nothing_in_advance(tmp_path):
    source = Counted()
    assert cached_images(source, "a", "none", tmp_path) is None
    assert source.times == 0
    with pytest.raises(UserError, match="use disk or memory"):
        cached_images(Counted(is_random=False), "a", "none", tmp_path)


def test_large_caches_are_made_only_when_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_cache, "_MOST_BYTES", 100)
    assert cached_images(Counted(), "a", None, tmp_path) is None
    assert "decoded while training" in capsys.readouterr().out
    assert cached_images(Counted(), "a", "disk", tmp_path) is not None
    assert cached_images(Counted(), "a", None, tmp_path) is not None  # there is one now
    assert cached_images(Counted(2, is_random=False), "a", None, tmp_path) is not None


def test_an_unknown_choice_is_told():
    check_cache(None)
    with pytest.raises(UserError, match="'ram'; use none, disk, memory"):
        check_cache("ram")


def test_digests_follow_the_content(tmp_path):
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"one")
    first = file_digests([path], cache)
    assert file_digests([path], cache) == first
    shutil.copy(path, tmp_path / "b")
    assert file_digests([tmp_path / "b"], cache) == first
    path.write_bytes(b"two")
    assert file_digests([path], cache) != first
    (cache / "digests.json").write_text("{")  # a damaged memory is no memory
    assert file_digests([tmp_path / "b"], cache) == first
    with pytest.raises(UserError, match="missing"):
        file_digests([Path(tmp_path / "c")], cache)
