import os
import sys

import numpy as np
import pytest

from diffusion_policy.dataset.video.encoder import VideoEncoding, encode_frames


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="encoders take priority from root alone"
)
@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_encoding_leaves_no_thread_a_higher_priority(tmp_path, codec):
    def policies():
        threads = os.listdir("/proc/self/task")  # noqa: PTH208 -- names alone
        return {thread: os.sched_getscheduler(int(thread)) for thread in threads}

    before, own = policies(), os.sched_getscheduler(0)
    during = {}

    def blocks():
        yield np.zeros((2, 3, 64, 64), np.uint8)
        during.update(policies())
        yield np.zeros((1, 3, 64, 64), np.uint8)

    encode_frames(tmp_path / "a.mp4", blocks(), 10, VideoEncoding(codec))
    begun = {policy for thread, policy in during.items() if thread not in before}
    assert begun <= {own}
    assert os.sched_getscheduler(0) == own
