"""Encoded videos hold every frame, near its colours and at its exact time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from diffusion_policy.dataset.video.encoder import (
    ENCODERS,
    VideoEncoding,
    encode_frames,
    frame_rate,
    video_info,
)
from diffusion_policy.util.errors import UserError


def frames(n: int, size: tuple[int, int] = (64, 80), first: int = 0) -> np.ndarray:
    """Uniform pictures (n, 3, H, W) that tell the frame: 7 levels from one to the next."""
    levels = (first + 7 * np.arange(n)) % 256
    return np.broadcast_to(levels[:, None, None, None], (n, 3, *size)).astype(np.uint8)


def decoded(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """Time and pixels (H, W, 3) of each frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            (frame.pts * stream.time_base, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("size", [(64, 80), (65, 81)])
@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("fps", [10, 29.97, 30000 / 1001])
def test_every_frame_is_there_at_its_time(tmp_path, codec, size, fps):
    pictures = frames(7, size)
    path = tmp_path / "a.mp4"
    n = encode_frames(path, [pictures[:3], pictures[3:]], fps, VideoEncoding(codec))
    found = decoded(path)
    assert n == len(found) == 7
    for k, (time, pixels) in enumerate(found):
        assert time == k / frame_rate(fps)
        assert abs(time - k / fps) < 1e-6
        assert pixels.shape == (*size, 3)
        assert np.abs(pixels.astype(int) - pictures[k, 0, 0, 0]).max() <= 3


@pytest.mark.parametrize("codec", ENCODERS)
def test_frames_are_reached_quickly(tmp_path, codec):
    encode_frames(tmp_path / "a.mp4", [frames(8)], 10, VideoEncoding(codec, g=3))
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert [packet.is_keyframe for packet in packets] == [k % 3 == 0 for k in range(8)]
    assert [packet.dts for packet in packets] == [packet.pts for packet in packets]


def test_less_crf_is_closer(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    errors = []
    for crf in (5, 45):
        encode_frames(tmp_path / "a.mp4", [noise], 10, VideoEncoding("h264", crf=crf))
        found = np.stack([pixels for _, pixels in decoded(tmp_path / "a.mp4")])
        errors.append(np.abs(found.transpose(0, 3, 1, 2).astype(int) - noise).mean())
    assert errors[0] < 0.8 * errors[1]


def test_the_info_of_a_video_is_told(tmp_path):
    encode_frames(tmp_path / "a.mp4", [frames(2)], 10, VideoEncoding())
    info = video_info(tmp_path / "a.mp4", 10)
    assert (info["video.codec"], info["video.fps"]) == ("av1", 10)
    assert (info["video.height"], info["video.width"]) == (64, 80)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="holds no video"):
        video_info(tmp_path / "b.mp4", 10)


def test_bad_settings_and_sizes_are_refused(tmp_path):
    with pytest.raises(UserError, match="'vp9'; use av1, h264, hevc"):
        VideoEncoding("vp9")
    with pytest.raises(UserError, match="crf of h264 is 60; use 0 to 51"):
        VideoEncoding("h264", crf=60)
    with pytest.raises(UserError, match="g is 0"):
        VideoEncoding(g=0)
    with pytest.raises(UserError, match="80 x 48 cannot be encoded as hevc, which needs 64"):
        encode_frames(tmp_path / "a.mp4", [frames(2, (48, 80))], 10, VideoEncoding("hevc"))
    with pytest.raises(UserError, match=r"as h264 with .* preset none"):
        encode_frames(tmp_path / "a.mp4", [frames(2)], 10, VideoEncoding("h264", preset="none"))
