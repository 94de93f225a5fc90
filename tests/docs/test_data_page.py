"""The examples of docs/data.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_examples_make_and_load_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, load = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(make, {})
    for name in ("reach.zarr", "reach.zarr.zip"):
        buffer = ReplayBuffer.create_from_path(Path("data/mine") / name)
        assert buffer.episode_lengths.tolist() == [40, 40, 40]
    exec(load, {})
    printed = capsys.readouterr().out
    assert "'agent_pos': (2, 2), 'image': (2, 3, 96, 96)" in printed
    assert "torch.Size([16, 2])" in printed
