"""The YAML of a task that trains on recorded episodes, without a simulator."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.util.errors import UserError

LARGEST_IMAGE = 240
"""Pixels of the longer side that a policy sees; larger images are made smaller."""
_LEAST_IMAGE = 16  # a smaller array of floats is a table
_OF_THE_WORLD = re.compile(r"(^|[._])(object|env|environment)(_states?)?$")
"""Names of vectors that tell about the world, not the robot: robomimic's and LeRobot's."""
_AFTER_THE_ACTION = ("next.",)  # rewards and ends, which are no observations
_VALIDATION = 0.1  # share of episodes: validation chooses the best checkpoint


def task_yaml(store: EpisodeStore, path: str, name: str) -> str:
    """A task with every observation of the store that a policy can read.

    Depth and texts are told in comments, since few policies read them.

    Args:
        path: of the data set, as the task is to name it.
        name: of the task.

    Raises:
        UserError: there is no episode, no action that is a vector, or nothing is observed.
    """
    if not len(store.episode_ends):
        raise UserError(f"{path} holds no episode; record some or choose another data set")
    if "action" not in store.features:
        found = ", ".join(sorted(store.features))
        raise UserError(f"{path} has no 'action', only {found}; rename what was commanded")
    fields = {key: as_seen(field) for key, field in store.features.items() if key != "action"}
    fields = {k: f for k, f in fields.items() if not k.startswith(_AFTER_THE_ACTION)}
    if not any(field.type in ("rgb", "low_dim") for field in fields.values()):
        raise UserError(f"{path} holds nothing that a policy can observe; record some observation")
    n_episodes, n_steps = len(store.episode_ends), store.n_steps
    lines = [
        f"# Written by make_task from {n_episodes} episodes of {n_steps} steps in all. Remove what "
        "the policy is not to see.",
        f"name: {name}",
        f"fps: {_number(store.fps)} # steps per second",
        f"embodiment: {_text(_word(store.embodiment))} # name of the robot",
        "shape_meta:",
        "  obs:",
        *(f"    {line}" for line in _observations(fields)),
        *(f"    {line}" for line in _tasks(store, fields)),
        f"  action: {{shape: [{store.features['action'].size}]}}",
        *_transforms(fields),
        "dataset:",
        "  _target_: diffusion_policy.dataset.window_dataset.WindowDataset",
        f"  path: {_text(path)}",
        f"  val_ratio: {_VALIDATION} # share of episodes that are held out to choose checkpoints",
        "env_runner: null # there is no simulator: checkpoints of least validation loss are kept",
    ]
    return "\n".join(lines) + "\n"


def as_seen(field: Field) -> Field:
    """The field that a task gives a feature: pictures stored as floats look like vectors."""
    shape = field.shape
    if field.type == "low_dim" and len(shape) == 3 and 3 in (shape[0], shape[-1]):
        image = shape if shape[0] == 3 and shape[-1] != 3 else (3, *shape[:2])
        if min(image[1:]) >= _LEAST_IMAGE:
            return Field(image, "rgb", "VISUAL")
    return field


def _observations(fields: Mapping[str, Field]) -> Iterator[str]:
    for key, field in fields.items():
        if field.type == "low_dim":
            world = ", modality: ENV" if _OF_THE_WORLD.search(key) else ""
            yield f"{_text(key)}: {{shape: [{field.size}]{world}}}"
        elif field.type == "rgb":
            yield f"{_text(key)}: {{shape: {list(field.shape)}, type: rgb}}"
        elif field.type == "depth":
            entry = f"{_text(key)}: {{shape: {list(field.shape)}, type: depth}}"
            yield f"# {entry} # for a policy that reads depth"


def _tasks(store: EpisodeStore, fields: Mapping[str, Field]) -> Iterator[str]:
    """A comment on what the robot was told to do."""
    told = {store.episode(i).task for i in range(len(store.episode_ends))} - {None}
    texts = [key for key, field in fields.items() if field.type == "text"]
    for key in dict.fromkeys([*texts, *(["task"] if told else [])]):
        examples = ""
        if told and key == "task":
            text = min(map(str, told))[:80]
            # Some characters would end the line of the comment.
            first = json.dumps(text, ensure_ascii=not text.isprintable())
            examples = f"; {len(told)} of them, such as {first}"
        yield f"# {_text(key)}: {{type: text}} # for a policy that reads language{examples}"


def _transforms(fields: Mapping[str, Field]) -> Iterator[str]:
    """A Resize for each shape of images that is larger than a policy needs."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for key, field in fields.items():
        if field.type == "rgb" and max(field.shape[1:]) > LARGEST_IMAGE:
            by_shape.setdefault(field.shape[1:], []).append(key)
    if not by_shape:
        yield "transforms: []"
        return
    yield "transforms: # what the policy sees; larger images train slower (docs/transforms.md)"
    for shape, keys in by_shape.items():
        height, width = (max(1, round(side * LARGEST_IMAGE / max(shape))) for side in shape)
        yield "  - _target_: diffusion_policy.transforms.images.Resize"
        yield f"    height: {height} # recorded: {shape[0]} x {shape[1]}"
        yield f"    width: {width}"
        yield f"    keys: [{', '.join(map(_text, keys))}]"


def check_task(text: str) -> None:
    """Check that a task can be read as it was written.

    Raises:
        UserError: a name or a value would be read as something else.
    """
    from omegaconf import OmegaConf

    task = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert isinstance(task, dict)
    TaskSpec.parse(task["shape_meta"], task["fps"], task["embodiment"])


def name_of(path: str) -> str:
    """A name for the task of a data set, from its path or address."""
    stem = Path(path.rstrip("/")).name
    for suffix in (".zip", ".zarr", ".hdf5", ".h5"):
        stem = stem.removesuffix(suffix)
    return re.sub(r"\W+", "_", stem.lower(), flags=re.ASCII).strip("_") or "my_task"


def _word(embodiment: str | None) -> str:
    """A name of letters, digits and _; the name may come from anywhere."""
    return re.sub(r"\W+", "_", embodiment or "", flags=re.ASCII).strip("_").lower() or "robot"


def _number(fps: float | None) -> str:
    return "null" if fps is None else f"{fps:.10g}"


def _text(value: str) -> str:
    """A string of YAML that no reader takes for something else."""
    if re.fullmatch(r"[A-Za-z_][\w./-]*", value, flags=re.ASCII) and value.lower() not in _WORDS:
        return value
    return json.dumps(value.replace("${", r"\${"), ensure_ascii=not value.isprintable())


_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf")
