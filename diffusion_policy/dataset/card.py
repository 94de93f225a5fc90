"""The card of a data set on the hub: what is in it, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.store_origin import metadata_of
from diffusion_policy.dataset.stores.episode_store import TASK, EpisodeStore
from diffusion_policy.util.tables import markdown_table

_MOST_TASKS = 20


def dataset_card(store: EpisodeStore, name: str, format_name: str, text: str = "") -> str:
    """README of a data set for the hub.

    Args:
        name: heading.
        format_name: such as ``lerobot-v3.0``.
        text: follows the numbers.
    """
    from huggingface_hub import DatasetCardData

    metadata = metadata_of(store)
    tags = ["robotics", "LeRobot"] if metadata is not None else ["robotics"]
    shown: dict[str, Any] = {}  # which files the hub shows as a table
    if metadata is not None:
        shown["configs"] = [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    data = DatasetCardData(task_categories=["robotics"], tags=tags, **shown)
    lengths = np.diff(store.episode_ends, prepend=0)
    facts = {
        "format": format_name,
        "episodes": f"{len(lengths):,}",
        "steps": f"{store.n_steps:,} ({lengths.min()} to {lengths.max()} an episode)",
    }
    if store.fps:
        facts |= {
            "steps per second": f"{store.fps:g}",
            "duration": f"{store.n_steps / store.fps / 60:.1f} minutes",
        }
    if store.embodiment:
        facts["robot"] = store.embodiment
    features = [
        (f"`{key}`", field.type, "x".join(map(str, field.shape)) or "1", _names(store, key))
        for key, field in store.features.items()
    ]
    tasks = _tasks(store)
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        markdown_table(("", ""), facts.items()),
        "## Features",
        markdown_table(("name", "type", "shape", "parts"), features),
    ]
    if tasks:
        parts += ["## Tasks", "\n".join(f"- {task}" for task in tasks)]
    return "\n\n".join([*parts, *([text] if text else [])]) + "\n"


def _names(store: EpisodeStore, key: str) -> str:
    metadata = metadata_of(store)
    feature = metadata.features.get(key) if metadata is not None else None
    return ", ".join(feature.part_names) if feature is not None and feature.is_number else ""


def _tasks(store: EpisodeStore) -> list[str]:
    """Texts of the tasks, each once and on one line; the first of them if there are many."""
    metadata = metadata_of(store)
    if metadata is not None:
        texts = list(metadata.tasks)
    elif TASK in store.features:
        texts = list(dict.fromkeys(map(str, store.read(TASK, np.arange(store.n_steps)))))
    else:
        found = (store.episode(i).task for i in range(len(store.episode_ends)))
        texts = list(dict.fromkeys(task for task in found if task))
    texts = [" ".join(text.split()) for text in texts if text.strip()]
    more = [f"... and {len(texts) - _MOST_TASKS} more"] if len(texts) > _MOST_TASKS else []
    return texts[:_MOST_TASKS] + more


def own_text(path: Path) -> str:
    """What a README beside the data says, without what only the hub reads."""
    readme = path / "README.md"
    if not readme.is_file() or readme.is_symlink():
        return ""
    text = readme.read_text(errors="replace")
    if text.startswith("---\n"):
        _, end, rest = text[4:].partition("\n---\n")
        text = rest if end else text
    return text.strip()
