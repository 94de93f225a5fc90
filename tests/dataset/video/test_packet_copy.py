"""Cut and joined videos hold the very frames of their sources."""

from __future__ import annotations

import av
import numpy as np
import pytest

from diffusion_policy.dataset.video.encoder import ENCODERS, VideoEncoding, encode_frames
from diffusion_policy.dataset.video.packet_copy import (
    NotCopyableError,
    Part,
    copy_parts,
    read_layout,
)
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.lerobot.golden import GOLDEN
from tests.dataset.video.test_encoder import decoded, frames

FPS = 29.97


def encode(path, n, codec="h264", first=0, size=(64, 80), **options):
    encode_frames(path, [frames(n, size, first)], FPS, VideoEncoding(codec, **options))
    return Part(VideoSegment(path), n)


def pixels(path) -> list[np.ndarray]:
    return [found for _, found in decoded(path)]


@pytest.mark.parametrize("codec", ENCODERS)
def test_joined_and_cut_again_no_pixel_changes(tmp_path, codec):
    parts = [encode(tmp_path / f"{i}.mp4", n, codec, 90 * i) for i, n in enumerate([7, 1, 4])]
    copy_parts(tmp_path / "all.mp4", parts, FPS)
    found = decoded(tmp_path / "all.mp4")
    assert [float(time) for time, _ in found] == pytest.approx([k / FPS for k in range(12)])
    wanted = [frame for i in range(3) for frame in pixels(tmp_path / f"{i}.mp4")]
    np.testing.assert_array_equal([frame for _, frame in found], wanted)

    cut = Part(VideoSegment(tmp_path / "all.mp4", 8 / FPS), 4)
    copy_parts(tmp_path / "cut.mp4", [cut], FPS)
    assert decoded(tmp_path / "cut.mp4")[0][0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "cut.mp4"), wanted[8:])


def test_what_the_published_package_wrote_is_cut(tmp_path):
    path = next((GOLDEN / "v30").glob("videos/*front/*/*.mp4"))
    whole = pixels(path)
    copy_parts(tmp_path / "a.mp4", [Part(VideoSegment(path, 2.1), 15)], 10)
    np.testing.assert_array_equal(pixels(tmp_path / "a.mp4"), whole[21:])


def test_frames_that_are_shown_in_another_order_keep_their_times(tmp_path):
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "8", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for picture in frames(8).transpose(0, 2, 3, 1):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    whole = Part(VideoSegment(tmp_path / "b.mp4"), 8)
    assert read_layout(whole, 10).delay > 0
    copy_parts(tmp_path / "c.mp4", [whole, whole], 10)
    found = decoded(tmp_path / "c.mp4")
    assert [float(time) for time, _ in found] == pytest.approx([k / 10 for k in range(16)])
    np.testing.assert_array_equal([f for _, f in found], 2 * pixels(tmp_path / "b.mp4"))
    # Its last frame needs others that are not in it.
    with pytest.raises(NotCopyableError, match="off the grid"):
        copy_parts(tmp_path / "d.mp4", [Part(VideoSegment(tmp_path / "b.mp4"), 2)], 10)


def test_what_cannot_be_copied_is_told(tmp_path):
    a = encode(tmp_path / "a.mp4", 6, g=4)
    for start, length, message in [
        (1 / FPS, 3, "no key frame at"),
        (4 / FPS, 3, "with 3 frames"),
        (9.0, 1, "no key frame at 9 s"),
    ]:
        with pytest.raises(NotCopyableError, match=message):
            copy_parts(tmp_path / "x.mp4", [Part(VideoSegment(a.segment.path, start), length)], FPS)
    for other in (
        encode(tmp_path / "b.mp4", 6, codec="hevc"),
        encode(tmp_path / "c.mp4", 6, size=(64, 96)),
        encode(tmp_path / "d.mp4", 6, size=(63, 79)),
    ):
        with pytest.raises(NotCopyableError, match="encoded in another way"):
            copy_parts(tmp_path / "x.mp4", [a, other], FPS)
    with pytest.raises(NotCopyableError, match="off the grid of 10 fps"):
        copy_parts(tmp_path / "x.mp4", [a], 10)
    with pytest.raises(UserError, match="cannot be read"):
        copy_parts(tmp_path / "x.mp4", [Part(VideoSegment(tmp_path / "none.mp4"), 1)], FPS)
    (tmp_path / "half.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    with pytest.raises(UserError, match=r"cannot be read|holds no video"):
        copy_parts(tmp_path / "x.mp4", [Part(VideoSegment(tmp_path / "half.mp4"), 1)], FPS)
