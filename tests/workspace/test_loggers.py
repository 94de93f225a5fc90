import itertools
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.curves import curves, plot_curves
from diffusion_policy.workspace.loggers import RunLogger


def config(mode: str = "disabled", tensorboard: bool = False):
    return OmegaConf.create(
        {"logging": {"tensorboard": tensorboard, "wandb": {"mode": mode, "project": "test"}}}
    )


RECORDS = [
    {"global_step": step, "train_loss": 1 / (step + 1), "lr": 1e-4, "video": "a.mp4"}
    for step in range(5)
]


def test_json_lines_are_always_written(tmp_path):
    with RunLogger(tmp_path, config()) as logger:
        for record in RECORDS:
            logger.log(record)
    assert read_log(tmp_path / "logs.json.txt") == RECORDS
    assert [path.name for path in tmp_path.iterdir()] == ["logs.json.txt"]


@pytest.mark.slow
def test_wandb_offline_keeps_a_run_on_disk(tmp_path):
    pytest.importorskip("wandb")
    with RunLogger(tmp_path, config("offline")) as logger:
        for record in RECORDS:
            logger.log(record)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(read_log(tmp_path / "logs.json.txt")) == 5


@pytest.mark.slow
def test_a_run_that_goes_on_does_so_at_wandb(tmp_path):
    pytest.importorskip("wandb")
    for keep in (0, 1, 0):  # the last one starts anew
        with RunLogger(tmp_path, config("offline"), keep=keep) as logger:
            logger.log({**RECORDS[keep], "video": "none.mp4"})
    ids = [path.name.split("-")[3] for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(set(ids)) == 2
    assert (tmp_path / "wandb/id.txt").read_text() in ids


@pytest.mark.slow
def test_videos_go_to_wandb(tmp_path):
    pytest.importorskip("wandb")
    (tmp_path / "a.mp4").write_bytes(b"no real video")
    record = {"global_step": 0, "test/sim_video_1": str(tmp_path / "a.mp4"), "b": "gone.mp4"}
    with RunLogger(tmp_path, config("offline")) as logger:
        logger.log(record)
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/videos/test/*.mp4"))) == 1


@pytest.mark.parametrize("argument", [{"foo": 1}, {"id": "a/b"}])
def test_what_wandb_refuses_is_told_in_one_line(tmp_path, argument):
    pytest.importorskip("wandb")
    cfg = config("offline")
    OmegaConf.update(cfg, "logging.wandb", argument, force_add=True)
    with pytest.raises(UserError, match="wandb cannot start") as caught:
        RunLogger(tmp_path, cfg)
    assert "\n" not in str(caught.value)


def test_lost_records_are_told(tmp_path, capsys):
    (tmp_path / "logs.json.txt").write_text('{"global_step": 0}\n{"global_st')
    with RunLogger(tmp_path, config(), keep=3) as logger:
        assert logger.n_kept == 1
    assert "holds 1 of the 3 records that the checkpoint counts" in capsys.readouterr().out


def test_missing_tensorboard_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard or set it to false"):
        RunLogger(tmp_path, config(tensorboard=True))


@pytest.mark.slow
@pytest.mark.parametrize("scored", [False, True])
def test_curves_are_drawn_from_any_log(tmp_path, scored):
    with RunLogger(tmp_path, config()) as logger:
        for record in RECORDS:
            logger.log(record)
        if scored:
            score = {"success_rate": 0.5, "success_ci_low": 0.3, "success_ci_high": 0.7}
            score["mean_score"] = 0.8
            logger.log(
                {"global_step": 5, "val_loss": 0.3, **{f"test/{k}": v for k, v in score.items()}}
            )
    plot_curves(tmp_path / "logs.json.txt", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [1, 7, 250, 13_271, 999_999])
def test_labels_of_curves_do_not_touch(last_step):
    steps = sorted({round(last_step * i / 20) for i in range(21)})
    score = {"test/mean_score": 0.5, "test/success_rate": 0.4, "train_action_mse_error": 1e4}
    record = {"train_loss": 0.1, "grad_norm": 3.0, "lr": 1e-4, "val_loss": 0.2, **score}
    figure = curves([{"global_step": step, **record} for step in steps])
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert len(figure.axes) == 5
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_ticklabels(which="both")
            boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
            shown = [box for box in boxes if box.width and axes.bbox.padded(9).overlaps(box)]
            pairs = itertools.combinations(shown, 2)
            assert not any(one.overlaps(other) for one, other in pairs), axes.get_title()
