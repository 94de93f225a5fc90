"""The published lerobot package reads what we write.

It needs other versions than we do, so that it lies in an environment of its own:

    python3 -m venv venv-lerobot && venv-lerobot/bin/pip install 'lerobot[dataset]'
    LEROBOT_PYTHON=venv-lerobot/bin/python python -m pytest tests/interop/test_published_lerobot.py

Versions from 0.4 on read v3.0; 0.3.3 is the last that reads v2.1.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.dataset.convert import Target, convert
from diffusion_policy.dataset.prepared_episode import Source
from diffusion_policy.dataset.stores.lerobot.info import read_info
from diffusion_policy.dataset.stores.lerobot.statistics import image_statistics, vector_statistics
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer

PYTHON = os.environ.get("LEROBOT_PYTHON", "")
LENGTHS = (7, 1, 12)
CAMERA = "observation.images.front"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LEROBOT_PYTHON names no Python with lerobot"),
]


def installed() -> tuple[int, ...]:
    told = "from importlib.metadata import version; print(version('lerobot'))"
    found = subprocess.run([PYTHON, "-c", told], capture_output=True, text=True, check=True)
    return tuple(int(number) for number in found.stdout.strip().split(".")[:2])


def recorded(path: Path) -> ReplayBuffer:
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    rng = np.random.default_rng(0)
    for i, length in enumerate(LENGTHS):
        levels = 40 * i + 10 * np.arange(length)
        buffer.add_episode(
            {
                "state": rng.normal(size=(length, 6)).astype(np.float32),
                "action": rng.normal(size=(length, 2)),
                "matrix": rng.normal(size=(length, 2, 3)).astype(np.float32),
                CAMERA: np.broadcast_to(
                    levels[:, None, None, None] + np.array([0, 20, 40])[:, None, None],
                    (length, 3, 64, 96),
                ).astype(np.uint8),
                "task": [("push", "pull")[(i + k // 4) % 2] for k in range(length)],
            }
        )
    buffer.update_meta({"initial_state": rng.normal(size=(len(LENGTHS), 5))})
    return buffer


@pytest.mark.parametrize("lossless", [False, True], ids=["video", "png"])
@pytest.mark.parametrize("fps", [10, 29.97])
def test_it_reads_what_we_write(tmp_path, lossless, fps):
    kind = "lerobot-v3.0" if installed() >= (0, 4) else "lerobot-v2.1"
    buffer = recorded(tmp_path / "a.zarr")
    source = Source((str(tmp_path / "a.zarr"),), cache_dir=str(tmp_path / "cache"))
    convert(source, tmp_path / "b", Target(kind, fps=fps, lossless=lossless))
    found = read(tmp_path / "b")
    print(f"lerobot {found['version']}, frames by {found['decoder']}, {kind}")

    ends = buffer.episode_ends
    assert (found["length"], found["episodes"]) == (ends[-1], len(ends))
    assert found["index"] == list(range(ends[-1]))
    frames = np.concatenate([np.arange(length) for length in LENGTHS])
    np.testing.assert_allclose(found["timestamp"], frames / fps, atol=1e-5)
    np.testing.assert_array_equal(np.float32(found["state"]), buffer.read("state"))
    np.testing.assert_allclose(found["action"], buffer.read("action"), atol=1e-6)
    assert found["tasks"] == buffer.read("task").tolist()
    pictures = buffer.read(CAMERA)
    assert found["shape"] == [3, 64, 96]
    tolerance = 0 if lossless else 2.5
    np.testing.assert_allclose(
        255 * np.array(found["mean"]), pictures.mean(axis=(2, 3)), atol=tolerance + 1e-3
    )
    last = np.isin(np.arange(ends[-1]), ends - 1)
    assert found["is_pad"] == [[False, bool(is_last)] for is_last in last]
    for key, wanted in (
        ("state", vector_statistics(buffer.read("state"))),
        ("action", vector_statistics(buffer.read("action"))),
        (CAMERA, image_statistics(pictures)),
    ):
        for name in ("min", "max", "mean", "std"):
            np.testing.assert_allclose(
                found["statistics"][key][name], wanted[name].ravel(), atol=1e-5
            )
    assert read_info(tmp_path / "b")["codebase_version"] == kind.removeprefix("lerobot-")


def read(path: Path) -> dict:
    script = Path(__file__).with_name("read_with_lerobot.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(path.parent / "hf")}
    result = subprocess.run(
        [PYTHON, str(script), str(path), CAMERA],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])
