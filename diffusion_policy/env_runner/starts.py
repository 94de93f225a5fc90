"""Groups of starts: fresh seeds, the initial states of recorded episodes, or a list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_policy.spec.start import Start
from diffusion_policy.util.config import plain
from diffusion_policy.util.config_file import read_plain_yaml
from diffusion_policy.util.errors import UserError

LIST_SUFFIXES = (".yaml", ".yml", ".json")
_KEYS = ("episodes", "starts", "start_seed", "n", "n_vis")
_START_KEYS = ("name", "seed", "options")


@dataclass(frozen=True)
class Group:
    """Episodes that are scored together.

    Attributes:
        name: of the group.
        starts: one for each episode; their names differ.
        n_vis: how many are recorded, the first ones.
    """

    name: str
    starts: tuple[Start, ...]
    n_vis: int = 0

    @classmethod
    def of_seeds(cls, name: str, start_seed: int, n: int, n_vis: int = 0) -> Group:
        """Fresh starts of ``n`` seeds, from ``start_seed`` on."""
        seeds = range(start_seed, start_seed + n)
        return cls(name, tuple(Start.of_seed(name, seed) for seed in seeds), n_vis)

    @classmethod
    def parse(cls, name: str, config: Mapping[str, Any]) -> Group:
        """From an entry of ``task.env_runner.groups``, one of:

        ``{start_seed: 200000, n: 50}``
            fresh seeds.
        ``{episodes: data/demonstrations.zarr}``
            the initial states of recorded episodes, named ``episode_0``, ``episode_1``, ...
        ``{starts: [{name: left, options: {state: [...]}}, ...]}``
            a list, or the name of a YAML or JSON file that holds one. ``seed`` is optional.

        The last two may have ``n``, which takes the first n alone, and ``start_seed``: the seeds of
        their starts count from there, 0 by default. Every form may have ``n_vis``.

        Raises:
            UserError: the entry has another form, or its file cannot be used.
        """
        where = f"task.env_runner.groups.{name}"
        config = plain(config)
        if not isinstance(config, dict) or not config.keys() <= set(_KEYS):
            raise UserError(f"{where} is {config!r}; it may have {', '.join(_KEYS)}")
        n, n_vis = config.get("n"), config.get("n_vis", 0)
        start_seed = config.get("start_seed", 0)
        for key, value, least in (("n", n, 1), ("n_vis", n_vis, 0), ("start_seed", start_seed, 0)):
            if value is not None and (type(value) is not int or value < least):
                raise UserError(f"{where}.{key} is {value!r}; use a whole number, at least {least}")
        match sorted({"episodes", "starts"} & config.keys()):
            case ["episodes"]:
                starts = _of_episodes(name, config["episodes"], start_seed, n)
            case ["starts"]:
                starts = _of_list(where, name, config["starts"], start_seed, n)
            case [] if n is not None:
                return cls.of_seeds(name, start_seed, n, n_vis)
            case _:
                raise UserError(
                    f"{where} is {config}; give either episodes (a data set), starts (a list), or "
                    "start_seed and n (fresh seeds)"
                )
        twice = [each for each, count in Counter(s.name for s in starts).items() if count > 1]
        if twice or not starts:
            raise UserError(
                f"{where} has two starts named {twice[0]!r}; rename one"
                if twice
                else f"{where} has no starts; give at least one"
            )
        return cls(name, tuple(starts), n_vis)


def group_from(
    starts: str, known: Mapping[str, Any] | None, n: int | None, start_seed: int | None
) -> tuple[str, dict[str, Any]]:
    """Name and entry of ``task.env_runner.groups`` for a choice on the command line.

    Args:
        starts: a group of ``known``, a YAML or JSON file with a list of starts, or a data set.
        n, start_seed: see :meth:`Group.parse`; None leaves them as they are.

    Raises:
        UserError: ``starts`` is none of these.
    """
    path, known = Path(starts), known or {}
    if starts in known:
        name, entry = starts, plain(known[starts])
    elif path.exists():
        name = re.sub(r"[^\w=-]", "_", path.name.partition(".")[0])
        entry = {"starts" if path.suffix in LIST_SUFFIXES else "episodes": starts}
    else:
        choices = ", ".join([*known, "a data set of recorded episodes"])
        raise UserError(
            f"starts {starts!r} are unknown; use {choices}, or a YAML file with a list of starts"
        )
    given = {"n": n, "start_seed": start_seed}
    return name, {**entry, **{key: value for key, value in given.items() if value is not None}}


def starts_text(info: Mapping[str, Any]) -> str:
    """Where the episodes of ``eval_info.json`` began, in a few words."""
    if info.get("starts") is not None:  # early files lack it
        return f"starts of {info['starts']}"
    first, last = info["seed_range"]
    return f"seeds {first} to {last}"


def _of_episodes(group: str, path: str, start_seed: int, n: int | None) -> list[Start]:
    """Starts from the simulator states in which recorded episodes began."""
    # Imported late: most runs begin from seeds.
    from diffusion_policy.dataset.stores.open_store import open_store

    if not isinstance(path, str):
        raise UserError(
            f"task.env_runner.groups.{group}.episodes is {path!r}; give the path of a data set"
        )
    store, starts = open_store(path), []
    for i in range(len(store.episode_ends))[:n]:
        state = store.episode(i).initial_state
        if state is None:
            raise UserError(
                f"{path} tells no initial state of episode {i}, so no episode can begin there; "
                "use seeds, or a list of starts"
            )
        starts.append(Start(group, f"episode_{i}", start_seed + i, {"state": state.tolist()}))
    return starts


def _of_list(
    where: str, group: str, entries: str | list[Any], start_seed: int, n: int | None
) -> list[Start]:
    if isinstance(entries, str):
        return _of_list(entries, group, _read_list(entries), start_seed, n)
    if not isinstance(entries, list):
        raise UserError(f"{where}.starts is {entries!r}; give a list of starts, or its file")
    starts = []
    for i, entry in enumerate(entries[:n]):
        if not isinstance(entry, Mapping) or not {"name"} <= entry.keys() <= set(_START_KEYS):
            raise UserError(
                f"start {i} of {where} is {entry!r}; give it a name, and options or seed"
            )
        seed = entry.get("seed", start_seed + i)
        starts.append(Start(group, str(entry["name"]), seed, entry.get("options")))
    return starts


def _read_list(path: str) -> list[Any]:
    try:
        entries = read_plain_yaml(Path(path))
    except UserError as error:
        raise UserError(f"the starts in {path} cannot be read: {error}") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} holds no list of starts; begin each with '- name: ...'")
    return entries
