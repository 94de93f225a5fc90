from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint, save_checkpoint
from diffusion_policy.checkpoint.topk import TopKCheckpoints
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import write_atomically


def run_topk(directory: Path, scores: list[float], **settings) -> TopKCheckpoints:
    topk = TopKCheckpoints(
        directory, k=2, format_str="{epoch}-{test_mean_score:.1f}.ckpt", **settings
    )
    for epoch, score in enumerate(scores):
        write_atomically(directory / "latest.ckpt", str(epoch).encode())
        name = topk.consider({"epoch": epoch, "test/mean_score": score})
        if name is not None:
            topk.keep(directory / "latest.ckpt", name)
    return topk


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("max", {"1-0.9.ckpt", "3-0.7.ckpt"}), ("min", {"0-0.2.ckpt", "2-0.5.ckpt"})],
)
def test_topk_keeps_the_best(tmp_path, mode, expected):
    topk = run_topk(tmp_path, [0.2, 0.9, 0.5, 0.7], mode=mode)
    assert set(topk.best) == expected
    assert {path.name for path in tmp_path.iterdir()} == {*expected, "latest.ckpt", "best.ckpt"}
    assert (tmp_path / "best.ckpt").read_text() == ("1" if mode == "max" else "0")
    for name in expected:
        assert (tmp_path / name).read_text() == name[0]


@pytest.mark.parametrize(
    "name",
    [
        *("../a.ckpt", "/tmp/a.ckpt", "b/a.ckpt", "..", "", ".ckpt/", "a.txt", "a\0.ckpt"),
        *("latest.ckpt", None, 3),
    ],
)
def test_topk_takes_only_plain_names_from_a_checkpoint(tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    for path in ("a.ckpt", "a.txt", "checkpoints/latest.ckpt"):
        (tmp_path / path).write_text("precious")
    topk = TopKCheckpoints(tmp_path / "checkpoints")
    for state in ({"best": {name: 1.0}}, {"best": {}, "dropped": [name]}):
        with pytest.raises(UserError, match=r"no name of a \.ckpt file"):
            topk.load_state_dict(state)
    if name is not None:
        with pytest.raises(UserError, match=r"no name of a \.ckpt file"):
            topk.repair(tmp_path / "checkpoints/latest.ckpt", name)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"a.ckpt", "a.txt", "latest.ckpt"}
    assert topk.state_dict()["best"] == {}


@pytest.mark.parametrize("value", ["0.5", None, [1.0]])
def test_topk_takes_only_numbers_to_rank_by(tmp_path, value):
    topk = TopKCheckpoints(tmp_path)
    with pytest.raises(UserError, match=r"ranks a\.ckpt by .* no number"):
        topk.load_state_dict({"best": {"a.ckpt": value}})
    assert topk.state_dict()["best"] == {}


def test_topk_ignores_records_without_a_value_to_rank(tmp_path):
    topk = TopKCheckpoints(tmp_path, k=2)
    assert topk.consider({"epoch": 0, "train_loss": 1.0}) is None
    assert topk.consider({"epoch": 0, "test/mean_score": float("nan")}) is None
    name = topk.consider({"epoch": 0, "test/mean_score": 0.5})
    assert name == "epoch=0000-test_mean_score=0.500.ckpt"


def test_topk_deletes_no_file_of_the_user(tmp_path):
    (tmp_path / "my_copy.ckpt").touch()
    run_topk(tmp_path, [0.2, 0.9, 0.5, 0.7])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("my_copy.ckpt", "latest.ckpt", "best.ckpt"),
        *("1-0.9.ckpt", "3-0.7.ckpt"),
    }


@pytest.mark.parametrize("key", ["val_loss", "test/mean_score", "epoch"])
def test_topk_names_files_after_the_monitored_metric(tmp_path, key):
    topk = TopKCheckpoints(tmp_path, monitor_key=key, mode="min")
    # An epoch without a rollout has no score: only what is ranked may be needed for the name.
    name = topk.consider({"epoch": 3, "global_step": 99, "train_loss": 0.1, key: 3})
    shown = key.replace("/", "_")
    assert name == f"epoch=0003-{shown}=3.000.ckpt"
    assert topk.best == {name: 3.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "best"}, "mode is 'best'; use max or min"),
        ({"k": -1}, "k is -1; use 0"),
        (
            {"monitor_key": "val_loss", "format_str": "{epoch}-{test_mean_score:.3f}.ckpt"},
            r"format_str is .* \('test_mean_score'\); use {epoch}, .* and {val_loss}",
        ),
        ({"format_str": "{epoch:.q}.ckpt"}, "format_str is .*; use {epoch}"),
        ({"format_str": "{}.ckpt"}, "format_str is .*; use {epoch}"),
        ({"format_str": "{epoch.ckpt"}, "format_str is .*; use {epoch}"),
        ({"format_str": "{test_mean_score:.3f}.ckpt"}, "tells checkpoints apart by {epoch}"),
        ({"format_str": "best/{epoch}.ckpt"}, "use a file name that ends in .ckpt"),
        ({"format_str": "{epoch}.pt"}, "use a file name that ends in .ckpt"),
    ],
)
def test_topk_refuses_settings_that_cannot_work(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        TopKCheckpoints(tmp_path, **settings)


def test_topk_tells_which_metrics_could_be_monitored(tmp_path):
    record = {"val_loss": 0.1, "test/mean_score": 0.5, "test/sim_video_7": "a.mp4"}
    record["test/sim_max_reward_7"] = 1.0
    TopKCheckpoints(tmp_path, monitor_key="test/mean_score").require_monitored(record)
    TopKCheckpoints(tmp_path, monitor_key="tset_score", k=0).require_monitored(record)
    for key in ["tset_score", "test/sim_video_7"]:
        topk = TopKCheckpoints(tmp_path, monitor_key=key)
        assert topk.consider(record) is None
        with pytest.raises(UserError, match="does not log; use one of test_mean_score, val_loss, "):
            topk.require_monitored(record)


def test_topk_tells_that_a_checkpoint_cannot_be_kept(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*a\.ckpt: No such file or directory"):
        TopKCheckpoints(tmp_path).keep(tmp_path / "latest.ckpt", "a.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [False, True])
def test_topk_is_repaired_after_a_crash(tmp_path, kept):
    topk = run_topk(tmp_path, [0.2, 0.9])
    name = topk.consider({"epoch": 2, "test/mean_score": 0.5})
    save_checkpoint(tmp_path / "latest.ckpt", "", {"topk": topk.state_dict(), "name": name})
    # Crash here: latest was written, but not kept under its name. Or it was, and the one that
    # fell out was not deleted.
    if kept:
        (tmp_path / name).hardlink_to(tmp_path / "latest.ckpt")
    (tmp_path / "my_copy.ckpt").touch()
    restored = TopKCheckpoints(tmp_path, k=2)
    restored.load_state_dict(load_checkpoint(tmp_path / "latest.ckpt")["state"]["topk"])
    assert restored.is_torn(tmp_path / "latest.ckpt", name)
    restored.repair(tmp_path / "latest.ckpt", name)
    assert not restored.is_torn(tmp_path / "latest.ckpt", name)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("my_copy.ckpt", "latest.ckpt", "best.ckpt"),
        *("1-0.9.ckpt", "2-0.5.ckpt"),
    }
    assert (tmp_path / name).samefile(tmp_path / "latest.ckpt")
    assert restored.state_dict()["dropped"] == []
    (tmp_path / "1-0.9.ckpt").unlink()
    restored.repair(tmp_path / "latest.ckpt", None)
    assert set(restored.best) == {"2-0.5.ckpt"}
    assert (tmp_path / "best.ckpt").readlink() == Path("2-0.5.ckpt")


def test_a_best_checkpoint_of_the_user_is_left_alone(tmp_path):
    (tmp_path / "best.ckpt").write_text("mine")
    run_topk(tmp_path, [0.2, 0.9])
    assert (tmp_path / "best.ckpt").read_text() == "mine"


def test_topk_does_not_rank_values_of_different_metrics(tmp_path):
    topk = run_topk(tmp_path, [0.2, 0.9])
    resumed = TopKCheckpoints(tmp_path, monitor_key="train_loss", k=1)
    resumed.load_state_dict(topk.state_dict())
    name = resumed.consider({"epoch": 2, "train_loss": 0.1})
    resumed.keep(tmp_path / "latest.ckpt", name)
    assert set(resumed.best) == {name}
    assert {path.name for path in tmp_path.iterdir()} == {
        *("0-0.2.ckpt", "1-0.9.ckpt"),
        *("latest.ckpt", "best.ckpt", name),
    }
