"""Whoever reads the records of a run tells damage in one line, and takes none for a result."""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_policy.runs.comparison import KEYS, comparison
from diffusion_policy.runs.episodes import EPISODES_FILE, read_episodes, write_episodes
from diffusion_policy.runs.method_table import method_table
from diffusion_policy.runs.record_page import result_page
from diffusion_policy.runs.result import Result, read_info
from diffusion_policy.runs.results_table import rows
from diffusion_policy.runs.run import find_runs
from diffusion_policy.runs.settings import experiments
from diffusion_policy.util.errors import FULL_TRACEBACK, UserError, user_message
from tests.runs.fake_runs import make_run

ROOT = Path(__file__).parents[2]
N_MUTATIONS = 8
WORDS = (b"null", b"-1", b"1e999", b"NaN", b"'", b"[]", b"{}", b"true", b"[[[[", b"\xff\x00")


def mutated(contents: bytes, rng: random.Random) -> bytes:
    """The contents with a bit flipped, cut short, or with a part exchanged or left out."""
    start = rng.randrange(len(contents))
    end = min(len(contents), start + rng.choice([1, 8, 40]))
    return rng.choice(
        [
            lambda: (
                contents[:start]
                + bytes([contents[start] ^ 1 << rng.randrange(8)])
                + contents[start + 1 :]
            ),
            lambda: contents[:start],
            lambda: contents[:start] + rng.choice(WORDS) + contents[end:],
            lambda: with_another_value(contents, rng),
        ]
    )()


def with_another_value(contents: bytes, rng: random.Random) -> bytes:
    """A line ``"key": value,`` gets another value."""
    lines = contents.splitlines(keepends=True)
    i = rng.randrange(len(lines))
    before, colon, _ = lines[i].partition(b": ")
    comma = b"," if lines[i].rstrip().endswith(b",") else b""
    lines[i] = before + colon + rng.choice(WORDS) + comma + b"\n"
    return b"".join(lines)


def read_result(folder: Path) -> None:
    result_page(folder)
    list(rows([Result.read(folder)]))


def read_run(folder: Path) -> None:
    runs = find_runs([folder], KEYS)
    for run in runs:
        run.refresh()
    comparison(runs, "here", 0)
    method_table(experiments(runs), "test/mean_score", ["max", "last"])


def recorded_result(folder: Path) -> Path:
    source = ROOT / "docs/results/dot_pusht_scripted"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.webp", "videos"))
    table = folder / EPISODES_FILE
    write_episodes(table, read_episodes(table)[:30])  # fewer are faster
    return folder


CASES: list[tuple[str, Callable[[Path], Path], Callable[[Path], None]]] = [
    ("eval_info.json", recorded_result, read_result),
    ("launches.json", recorded_result, read_result),
    ("config.yaml", recorded_result, read_result),
    ("episodes.csv.gz", recorded_result, read_result),
    ("notes.md", recorded_result, read_result),
    ("logs.json.txt", lambda folder: make_run(folder, [0.1, 0.3, 0.2, 0.4]), read_run),
    (".hydra/config.yaml", lambda folder: make_run(folder, [0.1, 0.3, 0.2, 0.4]), read_run),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make", "read"), CASES, ids=[name for name, _, _ in CASES])
def test_damage_is_told_in_one_line(tmp_path, monkeypatch, name, make, read):
    monkeypatch.setenv(FULL_TRACEBACK, "1")  # else this file would pass for code of the user's own
    folder = make(tmp_path / "record")
    path, rng = folder / name, random.Random(0)
    if not path.is_file():
        path.write_text("It rained, and the results are these.\n")
    whole = path.read_bytes()
    read(folder)
    for i in range(N_MUTATIONS):
        path.write_bytes(mutated(whole, rng))
        try:
            read(folder)
        except Exception as error:
            message = user_message(error)
            if message is None:
                (tmp_path / "damaged").write_bytes(path.read_bytes())
                raise AssertionError(f"mutation {i} of {name}") from error
            assert "\n" not in message


def test_an_evaluation_that_is_cut_short_is_told(tmp_path):
    folder = recorded_result(tmp_path / "record")
    path = folder / "eval_info.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(UserError, match=r"eval_info\.json is damaged \(.*\); evaluate the check"):
        read_info(folder)


def test_what_an_episode_does_not_tell_is_unknown(tmp_path):
    folder = recorded_result(tmp_path / "result")
    episodes = read_episodes(folder / EPISODES_FILE)
    told = [{key: e[key] for key in ("seed", "max_reward", "length")} for e in episodes]
    write_episodes(folder / EPISODES_FILE, told)
    read_result(folder)
    assert {e["success"] for e in read_info(folder)["per_episode"]} == {None}


def test_a_table_that_grows_when_it_is_unpacked_is_refused(tmp_path):
    path = tmp_path / EPISODES_FILE
    path.write_bytes(gzip.compress(b"seed,length\n" + b"0,0\n" * 30_000_000, 1))
    with pytest.raises(UserError, match=r"is damaged \(it unpacks to more than 100,000,000 bytes"):
        read_episodes(path)
