"""Every file that a command reads, damaged at random: one line says so, or nothing has changed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.checkpoint.saved_policy import SavedPolicy
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.env_runner.starts import group_from
from diffusion_policy.interop.diffusion_policy_checkpoint import import_diffusion_policy
from diffusion_policy.interop.dot_checkpoint import load_dot_checkpoint
from diffusion_policy.policy.dot_policy import DOTPolicy
from diffusion_policy.runs.comparison import KEYS
from diffusion_policy.runs.result import Result
from diffusion_policy.runs.run import find_runs
from diffusion_policy.scripts import export_policy
from diffusion_policy.util.errors import FULL_TRACEBACK, user_message
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import NO_WEIGHTS, TINY_DOT, compose_config, tiny_overrides
from tests.dataset.stores.hdf5_files import write_isaac_lab, write_robomimic
from tests.dataset.stores.lerobot.golden import golden_copy
from tests.demos import make_demos
from tests.interop.published import low_dim_config, low_dim_state, write
from tests.interop.test_dot_checkpoint import LEROBOT_META, public_checkpoint
from tests.states import assert_equal_states

N = 32  # mutations of each kind of file
SECONDS = 20  # one that takes longer hangs


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        source: file or folder in the folder of samples; a copy of it is damaged.
        damaged: pattern of the files inside, for a folder.
        read: what a command does with it; returns what was read.
        is_exact: whatever is read without an error must be what was written. Other files may be
            edited by hand, so that a change can be somebody's wish, or bear no checksums.
        damage: the damage that is done; None is that of a disk, a download or an editor.
    """

    source: str
    read: Callable[[Path], Any]
    damaged: str = ""
    is_exact: bool = False
    damage: Callable[[bytes, random.Random], bytes | None] | None = None


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return SavedPolicy.read(path).build().state_dict()


def _arrays(path: Path) -> dict[str, Any]:
    buffer = ReplayBuffer.copy_from_path(path)
    arrays = {key: np.asarray(values) for key, values in buffer.items()}
    return {"ends": buffer.episode_ends.tolist()} | {
        key: (values.dtype.str, values.shape, values.tobytes()) for key, values in arrays.items()
    }


def _episodes(path: Path) -> dict[str, Any]:
    """All that a store tells of a data set, images decoded."""
    store = open_store(path, path.parent / "cache")
    store.prepare(store.features)
    found: dict[str, Any] = {"ends": store.episode_ends.tolist(), "fps": store.fps}
    for key in store.features:
        values = store.read(key, np.arange(store.n_steps))
        found[key] = values if isinstance(values, list) else values.tobytes()
    for i in range(len(store.episode_ends)):
        info = store.episode(i)
        state = None if info.initial_state is None else info.initial_state.tolist()
        found[f"episode {i}"] = [info.task, state]
    return found


def _compared(path: Path) -> object:
    from diffusion_policy.runs.comparison import comparison

    runs = find_runs([path], KEYS, depth=1)
    for run in runs:
        run.refresh()
    return len(comparison(runs, "title", 1))


def _recorded(path: Path) -> object:
    result = Result.read(path)
    return result.score, result.settings, result.effort


def _imported(path: Path) -> object:
    return import_diffusion_policy(path).policy.state_dict()


def _imported_dot(path: Path) -> object:
    policy = DOTPolicy(LEROBOT_META)
    load_dot_checkpoint(policy, path)
    return policy.state_dict()


def _cut(data: bytes, rng: random.Random) -> bytes:
    """A download that ended early."""
    return data[: rng.randrange(len(data))]


def _removed(data: bytes, rng: random.Random) -> None:
    """A copy without a file."""


_JSON_VALUES = (
    *(None, -1, 0, 0.5, 1e308, 2**70, "", "x", [], {}, True, [[]], {"a": {"b": []}}),
    *("v1.6", "v4.0", "../../x", "\x00", "$\\frac{$", "\ud800", "9" * 5000, [2**40, 2**40], ["x"]),
)
_TEMPLATES = (
    *(
        "/etc/passwd",
        "../../{episode_index}",
        "..",
        "",
        "data/../../x.parquet",
        "C:\\x",
        "x\\..\\y",
    ),
    *("{episode_index.__class__}", "{0}", "{}", "{", "{episode_index!r}", "\x00", "data"),
    *(
        "{episode_index:999999999d}",
        "{episode_index:{chunk_index}}",
        "{nothing}",
        "{file_index[0]}",
    ),
    *("~/x.parquet", "file:///etc/passwd", "http://localhost/{file_index}", "data/\n{file_index}"),
)


def _json_value(data: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in a JSON file."""
    content = json.loads(data)
    place = content
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    place[key] = rng.choice(_JSON_VALUES)
    return json.dumps(content).encode()


def _template(data: bytes, rng: random.Random) -> bytes:
    """Names of files that lead elsewhere, or ask for more than names."""
    key = rng.choice(("data_path", "video_path"))
    return json.dumps(json.loads(data) | {key: rng.choice(_TEMPLATES)}).encode()


KINDS = {
    "checkpoint": Kind("run/checkpoints/latest.ckpt", _weights, is_exact=True),
    "weights of a policy folder": Kind("policy", _weights, "model.safetensors", is_exact=True),
    "config of a policy folder": Kind("policy", _weights, "config.yaml"),
    "published checkpoint": Kind("published.ckpt", _imported, is_exact=True),
    "published weights": Kind("published.safetensors", _imported_dot),
    "zarr folder": Kind("demos.zarr", _arrays, "**/*", is_exact=True),
    "zarr file": Kind("demos.zarr.zip", _arrays, is_exact=True),
    # Numbers in HDF5, parquet and mp4 bear no checksums, or weak ones.
    "robomimic file": Kind("plain.hdf5", _episodes),
    "robomimic file with checksums": Kind("checked.hdf5", _episodes),
    "Isaac Lab file": Kind("isaac.hdf5", _episodes),
    **{
        f"{what} of {name}": Kind(source, _episodes, files, is_exact=is_exact, damage=damage)
        for name, source in {
            "robomimic": "plain.hdf5",
            "Isaac Lab": "isaac.hdf5",
            "LeRobot v2.1": "v21",
            "LeRobot v3.0": "v30",
        }.items()
        for what, files, is_exact, damage in (
            ("any file", "**/*", False, None),
            ("cut file", "**/*", True, _cut),
            ("missing file", "**/*", True, _removed),
            ("numbers and names in info.json", "meta/info.json", False, _json_value),
            ("templates in info.json", "meta/info.json", True, _template),
        )
        if source.startswith("v") or damage is _cut
    },
    "list of starts": Kind("starts.yaml", lambda path: group_from(str(path), None, None, None)),
    "config of a run": Kind("run", _compared, ".hydra/config.yaml"),
    "log of a run": Kind("run", _compared, "logs.json.txt"),
    "launches of a run": Kind("run", _compared, "launches.json"),
    "eval_info.json on record": Kind("result", _recorded, "eval_info.json"),
    "config on record": Kind("result", _recorded, "config.yaml"),
    "launches on record": Kind("result", _recorded, "launches.json"),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    make_demos(folder / "demos.zarr", n_episodes=3)
    demos = ReplayBuffer.copy_from_path(folder / "demos.zarr")
    demos.save_to_path(folder / "demos.zarr.zip")
    overrides = tiny_overrides(folder / "demos.zarr", folder / "cache", [*TINY_DOT, *NO_WEIGHTS])
    cfg = compose_config("train_dot_pusht", *overrides, "task.env_runner=null")
    TrainWorkspace(cfg, folder / "run").run()
    latest = folder / "run" / "checkpoints" / "latest.ckpt"
    export_policy.main(["--checkpoint", str(latest), "--output", str(folder / "policy")])
    write(folder / "published.ckpt", low_dim_config("transformer"), low_dim_state("transformer"))
    public_checkpoint(folder / "published.safetensors", "keypoints")
    checked = {"libver": "latest", "chunks": True, "fletcher32": True}
    write_robomimic(folder / "checked.hdf5", **checked)
    write_robomimic(folder / "plain.hdf5")
    write_isaac_lab(folder / "isaac.hdf5")
    golden_copy("v21", folder)
    golden_copy("v30", folder)
    starts = [{"name": f"start {i}", "seed": i, "options": {"state": [1.0] * 5}} for i in range(3)]
    (folder / "starts.yaml").write_text(json.dumps(starts, indent=1))
    results = Path(__file__).parents[2] / "docs" / "results"
    recorded = next(path.parent for path in sorted(results.glob("*/eval_info.json")))
    shutil.copytree(recorded, folder / "result", ignore=shutil.ignore_patterns("*.mp4", "*.png"))
    return folder


def _as_bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage of a disk or a download."""
    where, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(6):
        case 0:
            return data[:where]
        case 1:
            return data[:where] + bytes(other - where) + data[other:]
        case 2:
            return data[:where] + data[other:]
        case 3:
            return data[:other] + data[where:other] + data[other:]
        case 4:
            return data[:where] + rng.randbytes(rng.randrange(1, 40)) + data[where:]
    damaged = bytearray(data)
    damaged[min(where, len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


_VALUES = (
    *("null", "-1", "0", "1e308", ".nan", '"x"', "[]", "{}", "true", "99999999999999999999"),
    *("${oc.env:HOME}", "${task}", "!!python/name:os.system", "&a [*a]", "[[[[[[[["),
)


def _as_text(data: bytes, rng: random.Random) -> bytes:
    """A value, key or line of a text changed by hand or by another program."""
    lines = data.decode().splitlines()
    i = rng.randrange(len(lines))
    key, colon, _ = lines[i].partition(": ")
    match rng.randrange(4):
        case 0:
            del lines[i]
        case 1:
            lines.insert(i, lines[rng.randrange(len(lines))])
        case _ if colon:
            comma = "," if lines[i].endswith(",") else ""
            lines[i] = f"{key}: {rng.choice(_VALUES)}{comma}"
        case _:
            lines[i] = lines[i].replace('"', "", 1) + rng.choice(_VALUES)
    return "\n".join(lines).encode()


def _is_text(data: bytes) -> bool:
    return b"\0" not in data and data.isascii() and bool(data.strip())


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def _fault(kind: Kind, path: Path, expected: Any) -> str | None:
    """What is wrong with reading a damaged file; None where nothing is."""
    try:
        with warnings.catch_warnings(), _time_limit():
            warnings.simplefilter("ignore")
            found = kind.read(path)
    except Exception as error:
        message = user_message(error)
        if message is None:
            return f"{type(error).__name__}: {error}"
        return f"several lines: {message}" if "\n" in message else None
    if kind.is_exact:
        try:
            assert_equal_states(found, expected)
        except AssertionError as unequal:
            return f"read as something else: {unequal}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_told_in_one_line(name, samples, tmp_path, monkeypatch):
    monkeypatch.setenv(FULL_TRACEBACK, "1")  # an error that passes through a test is no line
    kind = KINDS[name]
    source = samples / kind.source
    expected = kind.read(source)
    files = (
        sorted(p for p in source.glob(kind.damaged) if p.is_file())
        if source.is_dir() and kind.damaged
        else [source]
    )
    rng = random.Random(name)
    faults = []
    for i in range(N):
        copy = tmp_path / source.name
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
        file = rng.choice(files)
        data = file.read_bytes()
        usual = _as_text if _is_text(data) and rng.random() < 0.7 else _as_bytes
        damaged = (kind.damage or usual)(data, rng)
        place = copy / file.relative_to(source)
        place.unlink() if damaged is None else place.write_bytes(damaged)
        if damaged != data and (fault := _fault(kind, copy, expected)):
            kept = tmp_path / f"damaged_{i}"
            copy.rename(kept)
            faults.append(f"{kept} ({file.name}): {fault}")
        else:
            shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
    assert not faults, "\n".join(faults)
