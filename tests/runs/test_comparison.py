import re
import shutil
from html.parser import HTMLParser

import pytest

from diffusion_policy.scripts.compare import write_comparison
from diffusion_policy.util.errors import UserError
from tests.runs.fake_runs import lines, make_run

INTERVAL = {"test/success_ci_low": 0.101, "test/success_ci_high": 0.799}
EPISODES = {"test/sim_max_reward_100000": 1.0, "my_group/sim_max_reward_left": 0.5}
VOID = {"meta", "img", "br", "line", "wbr"}


def _one_line(text):
    return " ".join(text.split())


class Page(HTMLParser):
    """The contents of a page: its tables as rows of texts, and the files it links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.references = [], [], []
        self.text = ""
        self.feed(text)
        assert self.open == []
        self.text = _one_line(self.text)
        self.tables = [[[_one_line(cell) for cell in row] for row in t] for t in self.tables]

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def page(tmp_path, *directories, **options):
    output = tmp_path / "compare.html"
    write_comparison(directories or [tmp_path], output, **options)
    return Page(output.read_text())


@pytest.fixture
def sweep(tmp_path):
    """Two seeds of a good learning rate, one of a bad one; the second seed is unfinished."""
    sweep = tmp_path / "sweep"
    low, high = "optimizer.lr=0.1", "optimizer.lr=0.2"
    make_run(sweep / "train_0", [0.1] * 4, [low], **INTERVAL)
    make_run(sweep / "train_1", [0.2, 0.9, 0.6, 0.8], [high], **INTERVAL, **EPISODES)
    make_run(sweep / "train_2", [0.6], [high, "training.seed=43"], **INTERVAL)
    return sweep


@pytest.mark.slow
def test_scores_are_grouped_by_experiment_the_best_first(tmp_path, sweep):
    mean, best, second, other = page(tmp_path, sweep).tables[0][1:]
    assert mean[:4] == ["A optimizer.lr=0.2", "mean of 2 seeds", "", "2 to 8"]
    assert mean[4:8] == ["35.0 %", "± 63.5 %", "0.700", "± 1.271"]
    assert mean[8:] == ["0.750", "± 1.906"]
    assert best[:4] == ["train_1", "finished", "42", "8"]
    assert best[4:] == ["40.0 %", "[10.1, 79.9]", "0.800", "", "0.900", ""]
    assert second[:5] == ["train_2", "stopped", "43", "2", "30.0 %"]
    assert other[:5] == ["B train_0optimizer.lr=0.1", "finished", "42", "8", "5.0 %"]


@pytest.mark.slow
def test_only_settings_that_differ_are_listed(tmp_path, sweep):
    assert page(tmp_path, sweep).tables[1] == [
        ["", "A", "B"],
        ["training.seed", "42, 43", "42"],
        ["optimizer.lr", "0.2", "0.1"],
    ]


def test_settings_read_as_configs_write_them(tmp_path, sweep):
    values = ["null", "true", "1e-05", "[1,2]", "text"]
    for i, value in enumerate(values):
        make_run(tmp_path / f"other/{i}", [0.5], [f"policy.x={value}"])
    make_run(tmp_path / "other/5", [0.4], ["policy.x=1", "training.device=cpu"])
    make_run(tmp_path / "other/6", [0.3], ["policy.x=1", "training.device=a", "training.seed=2"])
    rows = {row[0]: row[1:] for row in page(tmp_path, tmp_path / "other").tables[1]}
    assert rows["policy.x"] == ["null", "true", "1e-05", "[1, 2]", "text", "1"]
    assert rows["training.device"][-1] == "cpu (5), a (6)"


def test_repeats_of_a_seed_count_once(tmp_path):
    for name, score, seed in (("a", 0.2, 1), ("b", 0.4, 1), ("c", 0.6, 1), ("d", 0.8, 2)):
        make_run(tmp_path / name, [score] * 4, [f"training.seed={seed}"])
    mean = page(tmp_path).tables[0][1]
    assert mean[1] == "mean of 2 seeds, 4 runs"
    # Of 0.4 and 0.8: t = 12.706, and s / sqrt(n) = 0.2.
    assert mean[6:8] == ["0.600", "± 2.541"]
    for name in "d", "c":
        shutil.rmtree(tmp_path / name)
    mean = page(tmp_path).tables[0][1]
    assert (mean[1], mean[6:8]) == ("mean of 1 seed, 2 runs", ["0.300", ""])


def test_starts_that_failed_are_kept_apart(tmp_path, sweep):
    before = page(tmp_path, sweep)
    make_run(sweep / "train_3", settings=["optimizer.lr=0.2", "training.seed=44", "policy.y=1"])
    found = page(tmp_path, sweep)
    assert found.tables == before.tables
    assert "Starts that failed" in found.text
    assert "train_3" in found.text
    assert "Starts that failed" not in before.text


def test_the_page_needs_no_other_file(tmp_path, sweep):
    found = page(tmp_path, sweep)
    assert len(found.references) == 4  # an image per curve
    assert all(reference.startswith("data:") for reference in found.references)
    text = (tmp_path / "compare.html").read_text()
    assert "http" not in re.sub(r"base64,[\w+/=]+", "", text)
    assert "@import" not in text
    assert "url(" not in text


def test_methods_and_tasks_are_named_where_they_differ(tmp_path):
    make_run(tmp_path / "a", [0.1])
    make_run(tmp_path / "b", [0.5], ["name=train_<b>", "task.name=other", "policy.x=1"])
    rows = page(tmp_path).tables[0]
    assert [row[0] for row in rows[1:]] == [
        "A btrain_<b> on other",
        "B atrain_dot_pusht on pusht_keypoints",
    ]


def test_runs_without_rollouts_are_compared_by_their_validation_loss(tmp_path):
    losses = {"a": [0.3, 0.4], "b": [0.2, 0.5]}
    for name, values in losses.items():
        directory = make_run(tmp_path / name, settings=[f"optimizer.lr={values[0]}"])
        log = [{"global_step": i, "val_loss": loss} for i, loss in enumerate(values)]
        (directory / "logs.json.txt").write_text(lines(log))
    header, best, other = page(tmp_path).tables[0]
    assert header[4:] == ["Least validation loss", ""]
    assert (best[0][:3], best[4], other[0][:3], other[4]) == ("A b", "0.2", "B a", "0.3")


def test_a_run_without_scores_is_shown(tmp_path):
    directory = make_run(tmp_path / "train_0")
    (directory / "logs.json.txt").write_text(lines([{"global_step": 0, "train_loss": 0.5}]))
    found = page(tmp_path)
    label = "A train_0train_dot_pusht on pusht_keypoints"
    assert found.tables[0][1] == [label, "stopped", "42", "1", "", ""]
    assert len(found.references) == 1  # the curve of the loss
    assert "All settings are equal." in found.text


def test_nothing_but_failed_starts_is_a_page(tmp_path):
    make_run(tmp_path / "train_0")
    found = page(tmp_path)
    assert "Starts that failed" in found.text
    assert (found.tables, found.references) == ([], [])


@pytest.mark.slow
def test_videos_of_the_last_rollout_are_in_the_page(tmp_path, sweep):
    media = sweep / "train_1" / "media"
    for epoch, size in ((0, 9), (10, 9), (2, 9)):
        for name in ("test_100000_success", "my_group_left_failure", "train_0_failure"):
            path = media / f"epoch={epoch:04d}" / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([epoch]) * size)
    (sweep / "train_2/media/epoch=0000").mkdir(parents=True)
    (sweep / "train_2/media/epoch=0000/test_7_success.mp4").write_bytes(b"0" * 1_000_001)
    found = page(tmp_path, sweep)
    videos = [reference for reference in found.references if "video" in reference]
    assert videos == ["data:video/mp4;base64,CgoKCgoKCgoK"] * 2
    assert "test seed 100000: success, max reward 1.000" in found.text
    assert "my_group left: failure, max reward 0.500" in found.text
    assert "too large for this page" in found.text
    assert found.text.count("No videos were recorded.") == 1
    without = page(tmp_path, sweep, n_videos=0)
    assert not any("video" in reference for reference in without.references)


def test_no_link_in_place_of_a_video_is_in_the_page(tmp_path, sweep):
    (tmp_path / "secret").write_text("secret")
    media = sweep / "train_1" / "media" / "epoch=0000"
    media.mkdir(parents=True)
    (media / "test_1_success.mp4").symlink_to(tmp_path / "secret")
    (media / "test_2_success.mp4").symlink_to(tmp_path / "nothing")
    found = page(tmp_path, sweep)
    assert not any("video" in reference for reference in found.references)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directories": ["empty"]}, r"empty holds no run of train\.py"),
        ({"directories": ["sweep", "none"]}, r"none is not a directory"),
        ({"directories": ["sweep"], "n_videos": -1}, r"--videos is -1; use at least 0"),
        ({"directories": ["sweep"], "output": "file/page.html"}, r"cannot write .*page\.html"),
    ],
)
def test_mistakes_are_told(tmp_path, sweep, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    directories = [tmp_path / name for name in arguments.pop("directories")]
    output = tmp_path / arguments.pop("output", "page.html")
    with pytest.raises(UserError, match=message):
        write_comparison(directories, output, **arguments)
