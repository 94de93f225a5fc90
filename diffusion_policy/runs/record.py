"""Put a run and its evaluation on record, in a folder that is small enough to commit."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from diffusion_policy.env_runner.report import CONTACT_SHEET_FILE, INFO_FILE
from diffusion_policy.runs.episodes import EPISODES_FILE, write_episodes
from diffusion_policy.runs.record_page import (
    NOTES_FILE,
    OVERVIEW_FILE,
    README_FILE,
    result_page,
    title_of,
)
from diffusion_policy.runs.result import CONFIG_FILE, read_info
from diffusion_policy.util.atomic_file import replacing, set_aside_path
from diffusion_policy.util.errors import UserError, writing
from diffusion_policy.util.json_text import json_text
from diffusion_policy.workspace.curves import plot_curves
from diffusion_policy.workspace.launches import LAUNCHES_FILE, read_launches
from diffusion_policy.workspace.loggers import LOG_FILE

_VIDEOS = "videos"
_CONTENTS = {
    README_FILE,
    NOTES_FILE,
    CONFIG_FILE,
    INFO_FILE,
    EPISODES_FILE,
    LAUNCHES_FILE,
    OVERVIEW_FILE,
    _VIDEOS,
    "curves.png",  # of earlier versions, as the next one
    CONTACT_SHEET_FILE,
}
_WEBP_QUALITY = 80  # text of the curves stays sharp
_MOST_PIXELS = 2**26  # a contact sheet of 10 episodes has 2 million


def record_result(
    run: Path, evaluation: Path, output: Path, *, title: str | None = None, overwrite: bool = False
) -> None:
    """Write README, config, records, an overview image and two videos to ``output``.

    Paths below ``run`` and ``evaluation`` are written as ``data/outputs/<run>`` and
    ``data/eval/<name>``, so that the record does not show the folders of the machine.

    Args:
        run: output directory of train.py.
        evaluation: output directory of eval.py.
        title: heading of the README. None takes that of the earlier record, or the name of
            ``output``.
        overwrite: replace an earlier record, except for its ``notes.md``.

    Raises:
        UserError: something is missing, run and evaluation do not belong together, or ``output``
            exists or holds other files.
    """
    _require(run, LOG_FILE)
    _require(evaluation, INFO_FILE, CONTACT_SHEET_FILE)
    _check_output(output, overwrite)
    launches = _neutral(read_launches(run), run, evaluation)
    info = read_info(evaluation)
    checkpoint = Path(info["checkpoint"])
    _check_together(run, evaluation, info, launches[-1]["steps"][1])
    videos = keep_two_videos(info["per_episode"], _VIDEOS)
    _require(evaluation, *videos.values())
    for name in (*videos.values(), CONTACT_SHEET_FILE):
        if not (evaluation / name).resolve().is_relative_to(evaluation.resolve()):
            raise UserError(
                f"{evaluation} shows {name!r}, which lies elsewhere; evaluate the checkpoint again"
            )
    info = _neutral(info, run, evaluation)
    with writing(output), replacing(output) as folder:
        (folder / _VIDEOS).mkdir(parents=True)
        for name, source in videos.items():
            shutil.copyfile(evaluation / source, folder / name)
        with tempfile.TemporaryDirectory() as temporary:
            curves = Path(temporary, "curves.png")
            plot_curves(run / LOG_FILE, curves)
            stack_images([curves, evaluation / CONTACT_SHEET_FILE], folder / OVERVIEW_FILE)
        config = _neutral(_config(checkpoint), run, evaluation)
        OmegaConf.save(OmegaConf.create(config), folder / CONFIG_FILE)
        (folder / LAUNCHES_FILE).write_text(json_text(launches, indent=2))
        write_info(folder, info)
        if (output / NOTES_FILE).is_file():
            shutil.copyfile(output / NOTES_FILE, folder / NOTES_FILE)
        (folder / README_FILE).write_text(result_page(folder, title or title_of(output)))


def keep_two_videos(episodes: Sequence[dict[str, Any]], folder: str) -> dict[str, str]:
    """Keep the first video of each outcome, and name it in ``folder``.

    Returns:
        Former name by new name.
    """
    kept: dict[bool | None, dict[str, Any]] = {}
    for episode in episodes:
        if episode["video"] and kept.setdefault(episode["success"], episode) is not episode:
            episode["video"] = None
    renamed = {}
    for episode in kept.values():
        name = f"{folder}/{Path(episode['video']).name}"
        renamed[name] = episode["video"]
        episode["video"] = name
    return renamed


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Write what eval.py recorded: the episodes as a table, the rest as JSON."""
    aggregated = {k: v for k, v in info["aggregated"].items() if k != "near_misses"}
    short = {k: v for k, v in info.items() if k != "per_episode"} | {"aggregated": aggregated}
    (folder / INFO_FILE).write_text(json_text(short, indent=2))
    write_episodes(folder / EPISODES_FILE, info["per_episode"])


def stack_images(sources: Sequence[Path], output: Path) -> None:
    """Write PNG images below each other, all as wide as the widest, as one small file.

    Raises:
        UserError: one is damaged, or far larger than any of ours.
    """
    import cv2

    images = [_image(source) for source in sources]
    width = max(image.shape[1] for image in images)
    scaled = [
        cv2.resize(image, (width, round(width / image.shape[1] * image.shape[0])))
        for image in images
    ]
    cv2.imwrite(str(output), cv2.vconcat(scaled), [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])


def _image(path: Path) -> Any:
    """The pixels (H, W, 3) uint8 of a PNG file, whose size is looked at before it is unpacked."""
    import cv2

    data, image = path.read_bytes(), None
    width, height = (int.from_bytes(data[first : first + 4]) for first in (16, 20))
    if data.startswith(b"\x89PNG") and 0 < width * height <= _MOST_PIXELS:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} is no image of ours, or damaged; evaluate the checkpoint again")
    return image


def _config(checkpoint: Path) -> Any:
    """Config in a checkpoint. A later launch may have changed the one in the run's folder."""
    # Imported late: it loads torch, which nothing else here needs.
    from diffusion_policy.checkpoint.checkpoint_file import peek_checkpoint

    return OmegaConf.to_container(OmegaConf.create(peek_checkpoint(checkpoint)["config"]))


def _require(folder: Path, *names: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} holds no {name}; give the folder of a run as --run, and one of eval.py "
                "that recorded videos as --evaluation"
            )


def _check_together(run: Path, evaluation: Path, info: Mapping[str, Any], n_steps: int) -> None:
    """Refuse an evaluation of another run, or of an exported folder, which names no run."""
    checkpoint, checkpoints = info["checkpoint"], run / "checkpoints"
    if not Path(checkpoint).resolve().is_relative_to(checkpoints.resolve()):
        raise UserError(
            f"{evaluation} is of {checkpoint}, which does not lie in {checkpoints}; give the "
            "evaluation of a checkpoint of that run, from the folder where you evaluated it"
        )
    evaluated = info.get("global_step")
    if evaluated not in (None, n_steps):  # earlier versions did not write it
        raise UserError(
            f"{evaluation} is of step {evaluated:,} of {run}, which went on to {n_steps:,}; "
            "evaluate the last checkpoint"
        )


def _check_output(output: Path, overwrite: bool) -> None:
    aside = set_aside_path(output)
    if aside.exists():
        raise UserError(
            f"{aside} is what an interrupted record left of {output}; move it back, or delete it"
        )
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output} is a file; choose another --output")
    if not overwrite:
        raise UserError(f"{output} exists; choose another --output, or --overwrite it")
    others = sorted({path.name for path in output.iterdir()} - _CONTENTS)
    if others:
        raise UserError(f"{output} also holds {', '.join(others[:3])}; choose another --output")


def _neutral(value: Any, run: Path, evaluation: Path) -> Any:
    """Replace the paths of the two folders, however they are spelt, by the names in the docs."""
    text = json.dumps(value, ensure_ascii=False)
    for folder, name in ((run, "data/outputs/<run>"), (evaluation, "data/eval/<name>")):
        for spelling in {str(folder.resolve()), str(folder)}:
            # A single word may mean something else.
            here = r"(\./)*" if "/" in spelling else r"(\./)+"
            text = re.sub(rf"(?<![\w/.-]){here}{re.escape(spelling)}(?![\w.-])", name, text)
    return json.loads(text)
