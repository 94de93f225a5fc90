"""From a run and its evaluation to a folder that stands alone."""

import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from diffusion_policy.env_runner.evaluation import evaluate_checkpoint
from diffusion_policy.runs.record import _neutral, keep_two_videos, record_result
from diffusion_policy.runs.result import Result
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos

pytestmark = pytest.mark.slow  # a run is trained and evaluated for them


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    overrides = tiny_overrides(make_demos(folder / "demos.zarr"), folder / "cache")
    cfg = compose_config("train_dot_pusht", *overrides, "training.num_epochs=1")
    TrainWorkspace(cfg, folder / "run").run()
    return folder / "run"


@pytest.fixture(scope="module")
def evaluation(run) -> Path:
    folder = run.with_name("evaluation")
    checkpoint = run / "checkpoints" / "latest.ckpt"
    evaluate_checkpoint(
        checkpoint,
        folder,
        n_episodes=3,
        n_videos=2,
        n_workers=1,
        device="cpu",
        precision="bf16",
        overrides=["task.env_runner.max_steps=4"],
    )
    return folder


def test_the_folder_stands_alone(run, evaluation, tmp_path):
    output = tmp_path / "results" / "tiny"
    record_result(run, evaluation, output, title="A tiny run")
    text = (output / "README.md").read_text()
    assert text.startswith("# A tiny run\n")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (output / target).is_file() or target == "../../../RESULTS.md", target
    assert "| near miss | 0 |" in text
    assert "| seed | 42 |" in text
    assert "/latest.ckpt`, `task.env_runner.max_steps=4`, matrix products in bf16 |" in text

    result = Result.read(output)
    recorded = [episode for episode in result.info["per_episode"] if episode["video"]]
    assert [episode["seed"] for episode in recorded] == [100_000]  # both fail, one is enough
    assert [path.name for path in (output / "videos").iterdir()] == ["test_100000_failure.mp4"]
    assert recorded[0]["video"] == "videos/test_100000_failure.mp4"
    assert "| 100000 | failure: " in text
    original = json.loads((evaluation / "eval_info.json").read_text())
    del original["aggregated"]["near_misses"]  # the episodes tell
    assert result.score == original["aggregated"]
    for ours, theirs in zip(result.info["per_episode"], original["per_episode"], strict=True):
        assert {**ours, "video": None} == {**theirs, "video": None}
    assert result.n_steps == 4
    # Nothing tells of the machine's folders, but for where the demonstrations were.
    for path in output.glob("*.*"):
        assert str(run).encode() not in path.read_bytes(), path
    assert result.info["checkpoint"] == "data/outputs/<run>/checkpoints/latest.ckpt"


def test_the_first_success_and_the_first_failure_keep_their_videos():
    outcomes = [False, True, False, True]
    episodes = [
        {"success": success, "video": f"media/{i}.mp4"} for i, success in enumerate(outcomes)
    ]
    episodes.insert(0, {"success": True, "video": None})
    assert keep_two_videos(episodes, "new") == {
        "new/0.mp4": "media/0.mp4",
        "new/1.mp4": "media/1.mp4",
    }
    assert [episode["video"] for episode in episodes] == [
        None,
        "new/0.mp4",
        "new/1.mp4",
        None,
        None,
    ]


def test_an_earlier_record_is_kept_unless_told_otherwise(run, evaluation, tmp_path):
    output = tmp_path / "tiny"
    record_result(run, evaluation, output)
    (output / "README.md").write_text("mine")
    with pytest.raises(UserError, match="exists; choose another --output, or --overwrite it"):
        record_result(run, evaluation, output)
    assert (output / "README.md").read_text() == "mine"
    record_result(run, evaluation, output, overwrite=True)
    assert (output / "README.md").read_text().startswith("# tiny\n")
    record_result(run, evaluation, output, title="Mine", overwrite=True)
    record_result(run, evaluation, output, overwrite=True)
    assert (output / "README.md").read_text().startswith("# Mine\n")
    with pytest.raises(UserError, match="is a file; choose another --output"):
        record_result(run, evaluation, output / "README.md", overwrite=True)
    (output / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"also holds thesis\.tex"):
        record_result(run, evaluation, output, overwrite=True)


def test_notes_are_kept_and_shown(run, evaluation, tmp_path):
    output = tmp_path / "tiny"
    record_result(run, evaluation, output)
    assert not (output / "notes.md").exists()
    (output / "notes.md").write_text("It rained.\n")
    record_result(run, evaluation, output, overwrite=True)
    assert (output / "notes.md").read_text() == "It rained.\n"
    assert "```\n\nIt rained.\n\n## Failures" in (output / "README.md").read_text()


@pytest.mark.parametrize(
    ("run", "text", "expected"),
    [
        ("out/run", "a=./out/run/b", "a=data/outputs/<run>/b"),
        ("./out/läuft", "out/läuft", "data/outputs/<run>"),
        ("/tmp/out/läuft", "/tmp/out/läuft/x.ckpt", "data/outputs/<run>/x.ckpt"),
        ("run", "run ./run run=run", "run data/outputs/<run> run=run"),
        ("out/run", "about/run out/run2 out/run", "about/run out/run2 data/outputs/<run>"),
    ],
)
def test_folders_go_by_the_names_of_the_docs(run, text, expected):
    assert _neutral([text], Path(run), Path("data/eval/x")) == [expected]


def test_run_and_evaluation_belong_together(run, evaluation, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)  # of the same config
    with pytest.raises(UserError, match=r"latest\.ckpt, which does not lie in .*other/checkpoints"):
        record_result(other, evaluation, tmp_path / "tiny")
    with pytest.raises(UserError, match=r"holds no eval_info\.json; give the folder of a run"):
        record_result(run, run, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_the_evaluation_is_of_the_end_of_the_run(run, evaluation, tmp_path):
    launches = json.loads((run / "launches.json").read_text())
    info = json.loads((evaluation / "eval_info.json").read_text())
    assert info["global_step"] == launches[-1]["steps"][1]
    earlier = tmp_path / "evaluation"
    shutil.copytree(evaluation, earlier)
    (earlier / "eval_info.json").write_text(json.dumps({**info, "global_step": 3}))
    with pytest.raises(UserError, match=r"is of step 3 of .*run, which went on to 4; evaluate"):
        record_result(run, earlier, tmp_path / "tiny")


def test_nothing_is_begun_without_all_videos(run, evaluation, tmp_path):
    broken = tmp_path / "evaluation"
    shutil.copytree(evaluation, broken)
    next(broken.rglob("*.mp4")).unlink()
    with pytest.raises(UserError, match=r"evaluation holds no media/.*\.mp4"):
        record_result(run, broken, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_the_config_is_that_of_the_checkpoint(run, evaluation, tmp_path):
    config = run / ".hydra" / "config.yaml"  # written again by every launch
    before = config.read_text()
    assert "  alpha: 0.0\n" in before
    config.write_text(before.replace("  alpha: 0.0\n", "  alpha: 0.5\n"))
    try:
        record_result(run, evaluation, tmp_path / "tiny")
    finally:
        config.write_text(before)
    assert "  alpha: 0.0\n" in (tmp_path / "tiny" / "config.yaml").read_text()


def test_what_an_interruption_left_is_told(run, evaluation, tmp_path):
    (tmp_path / ".tiny.old").mkdir()
    with pytest.raises(UserError, match=r"\.tiny\.old is what an interrupted record left of"):
        record_result(run, evaluation, tmp_path / "tiny")


@pytest.mark.parametrize("how", ["path", "link"])
def test_a_record_takes_no_video_from_elsewhere(run, evaluation, tmp_path, how):
    copied = tmp_path / "evaluation"
    shutil.copytree(evaluation, copied)
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    info = json.loads((copied / "eval_info.json").read_text())
    video = next(episode for episode in info["per_episode"] if episode["video"])
    if how == "path":
        video["video"] = "../secret.mp4"
        (copied / "eval_info.json").write_text(json.dumps(info))
    else:
        (copied / video["video"]).unlink()
        (copied / video["video"]).symlink_to(secret)
    with pytest.raises(UserError, match="which lies elsewhere"):
        record_result(run, copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def bomb(path: Path) -> None:
    """A picture of 50 kB that is 50 GB."""
    blank = zlib.compress(bytes(10**7))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 130_000, 130_000, 8, 2, 0, 0, 0)), (b"IDAT", blank)]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def link(path: Path) -> None:
    path.symlink_to(path.parent.with_name("evaluation") / path.name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bomb, "no image of ours"),
        (lambda path: path.write_bytes(b"\x89PNG"), "no image of ours"),
        (link, "which lies elsewhere"),
    ],
)
def test_a_record_takes_no_other_picture(run, evaluation, tmp_path, make, message):
    copied = shutil.copytree(evaluation, tmp_path / "copied")
    sheet = copied / "contact_sheet.png"
    (tmp_path / "evaluation").mkdir()
    sheet.rename(tmp_path / "evaluation" / sheet.name)
    make(sheet)
    with pytest.raises(UserError, match=message):
        record_result(run, copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
