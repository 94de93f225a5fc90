from __future__ import annotations

import pickle
import resource
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.checkpoint.checkpoint_file import (
    load_checkpoint,
    peek_checkpoint,
    save_checkpoint,
)
from diffusion_policy.util.errors import UserError
from tests.states import assert_equal_states

STATE = {"model": {"weight": torch.arange(6.0)}, "epoch": 3, "best": {"a.ckpt": 0.5}, "name": None}


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", "policy: {}\n", STATE)
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert loaded["config"] == "policy: {}\n"
    assert torch.equal(loaded["state"]["model"]["weight"], STATE["model"]["weight"])
    assert loaded["state"]["best"] == STATE["best"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def truncated(path: Path) -> None:
    save_checkpoint(path, "", STATE)
    path.write_bytes(path.read_bytes()[:-200])


class Attack:
    def __reduce__(self) -> tuple:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no checkpoint at"),
        (truncated, "is damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b""), "is damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b"hello"), "not a checkpoint|pickled objects"),
        (lambda path: torch.save({"cfg": Attack()}, path), "holds pickled objects"),
        (lambda path: path.write_bytes(pickle.dumps(Attack())), "pickled objects"),
        (lambda path: torch.save({"weight": torch.ones(2)}, path), "has format None"),
        (lambda path: torch.save(torch.ones(2), path), "has format 'Tensor'"),
    ],
)
def test_foreign_and_broken_files_are_refused(tmp_path, capsys, make, message):
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


class Call:
    """Is read as what a function gives for arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    "bomb",
    [
        Call(bytearray, 3 * 10**9),
        Call(torch.Tensor, 10**5, 10**4),
        Call(torch.storage.UntypedStorage, 10**10),
    ],
)
@pytest.mark.parametrize("read", [load_checkpoint, peek_checkpoint])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_checkpoint_asks_for_memory(tmp_path, read, bomb, zipped):
    path = tmp_path / "x.ckpt"
    torch.save(
        {"format": "diffusion_policy/2", "config": "", "state": {"x": bomb}},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="holds pickled objects"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_all_plain_values_are_read(tmp_path):
    values = {
        "tensors": [torch.ones(2, dtype=each) for each in (torch.bool, torch.bfloat16)],
        "weight": torch.nn.Parameter(torch.ones(2)),
        "milestones": Counter([3, 3, 5]),
        "others": [b"x", {1, 2}, OrderedDict(a=None), torch.Size([2]), (1.5, True)],
    }
    save_checkpoint(tmp_path / "x.ckpt", "", values)
    read = load_checkpoint(tmp_path / "x.ckpt")["state"]
    assert read["others"] == values["others"]
    assert read["milestones"] == values["milestones"]
    assert_equal_states(read["tensors"], values["tensors"])


def stored(path: Path, config: object = "", state: object = STATE) -> None:
    torch.save({"format": "diffusion_policy/2", "config": config, "state": state}, path)


@pytest.mark.parametrize("contents", [{"config": None}, {"config": 5}, {"state": []}])
@pytest.mark.parametrize("read", [load_checkpoint, peek_checkpoint])
def test_contents_of_another_kind_are_refused(tmp_path, read, contents):
    stored(tmp_path / "x.ckpt", **contents)
    with pytest.raises(UserError, match=r"x\.ckpt is damaged or not a checkpoint \(config is "):
        read(tmp_path / "x.ckpt")


@pytest.mark.parametrize("config", ["a: [b", "- 1", "\x00", "[" * 3000])
@pytest.mark.parametrize("read", [load_checkpoint, peek_checkpoint])
def test_a_config_that_is_none_is_refused(tmp_path, read, config):
    stored(tmp_path / "x.ckpt", config)
    with pytest.raises(UserError, match=r"x\.ckpt is damaged \(") as caught:
        read(tmp_path / "x.ckpt")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_flipped_bit_is_refused_or_harmless(tmp_path):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, "policy: {}\n", STATE)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in rng.choice(8 * len(whole), 400, replace=False):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- not every flip is in data
            refused += 1
        else:  # between the records, or in what a zip archive holds twice
            assert loaded["config"] == "policy: {}\n"
            assert_equal_states(loaded["state"], STATE)
    assert refused > 100


def test_a_flipped_bit_of_a_tensor_does_not_hide_the_counters(tmp_path):
    path = tmp_path / "x.ckpt"
    weight = torch.full((1000,), 0.123)
    save_checkpoint(path, "", {"model": {"weight": weight}, "epoch": 3})
    whole = path.read_bytes()
    place = whole.index(weight.numpy().tobytes()) + 2000
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    assert peek_checkpoint(path)["state"]["epoch"] == 3
    with pytest.raises(UserError, match=r"is damaged .*Bad CRC-32 for file .*/data/0'"):
        load_checkpoint(path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.util.errors import reports_user_errors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
reports_user_errors(save_checkpoint)(Path(sys.argv[1]), "", {"model": torch.ones(100_000)})
"""


@pytest.mark.slow
def test_failed_write_keeps_the_previous_checkpoint(tmp_path):
    path = tmp_path / "latest.ckpt"
    save_checkpoint(path, "", STATE)
    # A limit on file size fails like a full disk: in the middle of the write.
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: cannot write {path}: ")
    assert "the previous one is kept" in result.stderr
    assert torch.equal(load_checkpoint(path)["state"]["model"]["weight"], torch.arange(6.0))
    assert [p.name for p in tmp_path.iterdir()] == ["latest.ckpt"]


MEMORY = """
import sys
from pathlib import Path
import torch
from diffusion_policy.checkpoint.checkpoint_file import peek_checkpoint, save_checkpoint

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

path, size = Path(sys.argv[1]), 200_000_000
save_checkpoint(path, "", {"weight": torch.zeros(3)})  # imports and buffers
state = {"model": {str(i): torch.rand(size // 40) for i in range(10)}, "epoch": 3}
for action in (
    lambda: save_checkpoint(path, "", state),
    lambda: peek_checkpoint(path)["state"]["epoch"],
):
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from here the peak counts
    action()
    print((resident("VmHWM") - before) / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_neither_saving_nor_looking_copies_the_tensors(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "a.ckpt")],
        capture_output=True,
        text=True,
        check=True,
    )
    saving, looking = map(float, result.stdout.split())
    assert saving < 0.1
    assert looking < 0.1
