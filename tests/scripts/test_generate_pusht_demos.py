"""The scripted demonstrations, and the command that makes them."""

import dataclasses
import sys
from pathlib import Path

import pytest
import zarr

from diffusion_policy.scripts import generate_pusht_demos as demos

SHIPPED = Path(__file__).parents[2] / demos.DEFAULT_OUTPUT


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    def generated(name, workers):
        path = tmp_path / name
        arguments = f"prog --episodes 3 --seed 5 --workers {workers} --output {path}"
        monkeypatch.setattr(sys, "argv", arguments.split())
        demos.main()
        return path.read_bytes()

    assert generated("one.zarr.zip", 1) == generated("two.zarr.zip", 2)


def test_existing_output_is_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "kept.zip"
    path.write_text("kept")
    monkeypatch.setattr(sys, "argv", ["prog", "--episodes", "1", "--output", str(path)])
    with pytest.raises(SystemExit, match="1"):
        demos.main()
    assert "exists" in capsys.readouterr().err
    assert path.read_text() == "kept"


@pytest.mark.slow
def test_replay_check_notices_a_changed_action():
    demonstration = demos.record(seed=0, index=0)
    demos.check_replay(demonstration)
    executed = demonstration.executed_action.copy()
    executed[3] += 0.1
    with pytest.raises(RuntimeError, match="step 4"):
        demos.check_replay(dataclasses.replace(demonstration, executed_action=executed))


@pytest.mark.slow
def test_shipped_demonstrations_replay_to_success():
    assert SHIPPED.stat().st_size <= 4e6
    keys = ("state", "action", "executed_action")
    with zarr.storage.ZipStore(SHIPPED, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        ends = group["meta/episode_ends"][:]
        starts = group["meta/initial_state"][:]
        data = {key: group[f"data/{key}"][:] for key in keys}
    assert len(ends) >= 200
    assert {values.dtype.str for values in data.values()} == {"<f4"}
    assert all(len(values) == ends[-1] for values in data.values())
    assert 0 <= data["action"].min() <= data["action"].max() <= 512
    for episode in range(0, len(ends), 20):
        rows = slice(ends[episode - 1] if episode else 0, ends[episode])
        recorded = {key: values[rows] for key, values in data.items()}
        demos.check_replay(demos.Demonstration(starts[episode], **recorded))
