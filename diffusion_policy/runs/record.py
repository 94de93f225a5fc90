"""Put a run and its evaluation on record, in a folder that is small enough to commit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.env_runner.report import CONTACT_SHEET_FILE, INFO_FILE
from diffusion_policy.runs.record_page import NOTES_FILE, README_FILE, result_page, title_of
from diffusion_policy.runs.result import CONFIG_FILE
from diffusion_policy.util.atomic_file import replacing, set_aside_path
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import writing
from diffusion_policy.workspace.curves import plot_curves
from diffusion_policy.workspace.launches import LAUNCHES_FILE, read_launches
from diffusion_policy.workspace.loggers import LOG_FILE

_VIDEOS = "videos"
_CONTENTS = {
    README_FILE,
    NOTES_FILE,
    CONFIG_FILE,
    INFO_FILE,
    LAUNCHES_FILE,
    "curves.png",
    CONTACT_SHEET_FILE,
    _VIDEOS,
}


def record_result(
    run: Path, evaluation: Path, output: Path, *, title: str | None = None, overwrite: bool = False
) -> None:
    """Write README, config, records, pictures and videos to ``output``.

    Paths below ``run`` and ``evaluation`` are written as ``data/outputs/<run>`` and
    ``data/eval/<name>``, so that the pages tell nothing of the machine's folders.

    Args:
        run: output directory of train.py.
        evaluation: output directory of eval.py.
        title: of the README; None is that of the earlier record, or the name of ``output``.
        overwrite: replace an earlier record, all but its ``notes.md``: what people wrote stands
            in that file, and the README shows it.

    Raises:
        UserError: something is missing, run and evaluation do not belong together, or ``output``
            exists or holds other things.
    """
    _require(run, LOG_FILE)
    _require(evaluation, INFO_FILE, CONTACT_SHEET_FILE)
    _check_output(output, overwrite)
    launches = _neutral(read_launches(run), run, evaluation)
    info = json.loads((evaluation / INFO_FILE).read_text())
    if "command" not in info:
        raise UserError(f"{evaluation} is of an earlier version; evaluate the checkpoint again")
    checkpoint = Path(info["checkpoint"])
    _check_together(run, evaluation, info, launches[-1]["steps"][1])
    _require(evaluation, *(episode["video"] for episode in info["per_episode"] if episode["video"]))
    info = _neutral(info, run, evaluation)
    # Not that of the run's folder, which a later launch may have written.
    cfg = OmegaConf.create(load_checkpoint(checkpoint)["config"])
    with writing(output), replacing(output) as folder:
        (folder / _VIDEOS).mkdir(parents=True)
        for episode in info["per_episode"]:
            if episode["video"]:
                source = evaluation / episode["video"]
                episode["video"] = f"{_VIDEOS}/{source.name}"
                shutil.copyfile(source, folder / episode["video"])
        shutil.copyfile(evaluation / CONTACT_SHEET_FILE, folder / CONTACT_SHEET_FILE)
        plot_curves(run / LOG_FILE, folder / "curves.png")
        config = _neutral(OmegaConf.to_container(cfg, resolve=True), run, evaluation)
        OmegaConf.save(OmegaConf.create(config), folder / CONFIG_FILE)
        for name, content in ((INFO_FILE, info), (LAUNCHES_FILE, launches)):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
        if (output / NOTES_FILE).is_file():
            shutil.copyfile(output / NOTES_FILE, folder / NOTES_FILE)
        (folder / README_FILE).write_text(result_page(folder, title or title_of(output)))


def _require(folder: Path, *names: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} holds no {name}; give the folder of a run as --run, and one of eval.py "
                "that recorded videos as --evaluation"
            )


def _check_together(run: Path, evaluation: Path, info: Mapping[str, Any], n_steps: int) -> None:
    """An exported folder is refused as well: it does not tell which run it came from."""
    checkpoint, checkpoints = info["checkpoint"], run / "checkpoints"
    if not Path(checkpoint).resolve().is_relative_to(checkpoints.resolve()):
        raise UserError(
            f"{evaluation} is of {checkpoint}, which does not lie in {checkpoints}; give the "
            "evaluation of a checkpoint of that run, in the folder where it was evaluated"
        )
    evaluated = info.get("global_step")
    if evaluated not in (None, n_steps):  # earlier versions did not tell
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
    """``value`` with the two folders, however they are given, under the names of the docs."""
    text = json.dumps(value, ensure_ascii=False)
    for folder, name in ((run, "data/outputs/<run>"), (evaluation, "data/eval/<name>")):
        for spelling in {str(folder.resolve()), str(folder)}:
            # A bare word may mean other things as well.
            here = r"(\./)*" if "/" in spelling else r"(\./)+"
            text = re.sub(rf"(?<![\w/.-]){here}{re.escape(spelling)}(?![\w.-])", name, text)
    return json.loads(text)
