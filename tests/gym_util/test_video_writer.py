import av
import numpy as np
import pytest

from diffusion_policy.gym_util.video_writer import VideoWriter, read_video


def moving_square(n_frames, height, width):
    frames = np.zeros((n_frames, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[8:24, 4 * index : 4 * index + 16] = (200, 60, 60)
    return frames


def test_plays_back_what_was_written(tmp_path):
    frames = moving_square(8, 48, 64)
    with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
        for frame in frames:
            writer.write(frame)
    decoded = read_video(tmp_path / "a.mp4").astype(float)
    assert decoded.shape == frames.shape
    assert np.abs(decoded - frames).mean() < 4
    np.testing.assert_array_equal(read_video(tmp_path / "a.mp4", [0, 7, 7]), decoded[[0, 7, 7]])


def test_is_h264_that_players_accept(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
        for frame in moving_square(8, 47, 63):  # odd
            writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (48, 64)
        assert stream.average_rate == 10
        assert stream.frames == 8


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    frames = moving_square(2, 32, 32)
    with pytest.raises(ValueError, match="in a video of"), VideoWriter(path) as writer:  # noqa: PT012
        writer.write(frames[0])
        writer.write(frames[1][:16])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
