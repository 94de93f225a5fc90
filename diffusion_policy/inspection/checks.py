"""What may be wrong with recorded data. A new check is a function, and an entry of CHECKS."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from diffusion_policy.dataset.array_cache import content_hash
from diffusion_policy.inspection.recording import Finding, Recording

Check = Callable[[Recording], Iterable[str | tuple[str, Sequence[int]]]]

_FEW = 5  # places that a message names
_JUMP = 8  # times the 99 % quantile of the changes that are not 0
_STILL = 1e-3  # of the range of a value: less is no movement
_PAUSE_S = 2.0
_PAUSE_STEPS = 30  # where the rate is unknown
_FOLLOWS = 0.9  # correlation at which an action commands a state
_LIKE = 2.0  # times; a larger ratio is another unit
_UNITS = {180 / np.pi: "degrees and radians", 1000: "millimetres and metres", 100: "percent"}


def not_finite(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """NaN and infinities."""
    for key, values in recording.vectors.items():
        steps = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(steps):
            yield f"{key} is not finite at {_places(recording, steps)}", _episodes(recording, steps)


def jumps(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Changes from one step to the next that are far larger than all others."""
    for key, changes in recording.changes.items():
        for dim, column in enumerate(np.abs(changes).T):
            moving = column[np.isfinite(column) & (column > 0)]
            if len(moving) < 20:  # too few to tell what is usual
                continue
            steps = np.flatnonzero(column > _JUMP * np.quantile(moving, 0.99))
            if len(steps):
                largest = float(column[steps].max())
                angle = _turn(largest)
                yield (
                    f"{key}[{dim}] jumps by up to {largest:.4g} at {_places(recording, steps)}"
                    f"{angle}",
                    _episodes(recording, steps),
                )


def _turn(change: float) -> str:
    for turn in (2 * np.pi, 360):
        if abs(change / turn - 1) < 0.05:
            return "; perhaps an angle that starts again after a whole turn"
    return ""


def constant(recording: Recording) -> Iterator[str]:
    """Numbers that never change."""
    for key, values in recording.vectors.items():
        dims = np.flatnonzero((values == values[:1]).all(axis=0))
        if len(dims) and len(values) > 1:
            which = "" if values.shape[1] == 1 else f"[{', '.join(map(str, dims))}]"
            value = ", ".join(f"{value:.4g}" for value in values[0, dims[:_FEW]])
            yield f"{key}{which} is always {value}"


def swapped_cameras(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Episodes in which each of two cameras shows what the other one shows elsewhere."""
    if len(recording.sampled) < 3:  # which of two is swapped cannot be told
        return
    pictures = {key: images.mean(axis=1) for key, images in recording.thumbnails.items()}
    usual = {key: np.median(images, axis=0) for key, images in pictures.items()}

    def distance(key: str, other: str) -> np.ndarray:
        return np.abs(pictures[key] - usual[other]).mean(axis=(1, 2, 3))

    for one, other in itertools.combinations(pictures, 2):
        own = distance(one, one) + distance(other, other)
        crossed = distance(one, other) + distance(other, one)
        episodes = [recording.sampled[i] for i in np.flatnonzero(crossed < own / 2)]
        if episodes:
            yield f"{one} and {other} seem swapped in {_list(episodes)}", episodes


def still_cameras(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Cameras that show one colour, or the same picture from start to end."""
    for key, images in recording.thumbnails.items():
        plain = images.std(axis=(2, 3)).max(axis=(1, 2)) < 1
        still = np.abs(images - images[:, :1]).max(axis=(1, 2, 3, 4)) < 0.5
        lengths = recording.lengths[list(recording.sampled)]
        for what, found in (
            ("shows one colour", plain),
            ("does not change", still & ~plain & (lengths > 1)),
        ):
            episodes = [recording.sampled[i] for i in np.flatnonzero(found)]
            if episodes:
                yield f"{key} {what} in {_list(episodes)}", episodes


def gaps(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Steps that lie further apart in time than the others, or go back."""
    for key in ("timestamp", "timestamps", "observation.timestamp"):
        values = recording.vectors.get(key)
        if values is None or values.shape[1] != 1 or len(values) < 3:
            continue
        starts = np.concatenate([[0], recording.store.episode_ends[:-1]])
        change = np.delete(np.diff(values[:, 0], prepend=values[0]), starts)
        steps = np.delete(np.arange(len(values)), starts)
        period = 1 / recording.store.fps if recording.store.fps else float(np.median(change))
        late = steps[(change > 1.5 * period) | (change <= 0)]
        if len(late):
            yield (
                f"{key} is not {period:.4g} s after the step before at {_places(recording, late)}",
                _episodes(recording, late),
            )


def other_units(recording: Recording) -> Iterator[str]:
    """Actions that follow a state on another scale."""
    action = recording.vectors.get("action")
    if action is None or len(action) < 20:
        return
    for key, state in recording.vectors.items():
        if key == "action" or state.shape != action.shape or key.startswith("next."):
            continue
        ratios = {
            dim: ratio for dim in range(action.shape[1]) if (ratio := _ratio(action, state, dim))
        }
        if ratios:
            typical = float(np.median(list(ratios.values())))
            unit = _unit(typical)
            yield (
                f"action{list(ratios)} is about {typical:.3g} times {key}, which it follows"
                f"{unit}; are both in the same unit?"
            )


def _ratio(action: np.ndarray, state: np.ndarray, dim: int) -> float | None:
    """Scale of an action against the state that it follows; None if about 1, or not known."""
    x, y = state[:, dim].astype(float), action[:, dim].astype(float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or x.std() == 0 or y.std() == 0:
        return None
    if np.corrcoef(x, y)[0, 1] < _FOLLOWS:
        return None
    ratio = float(y.std() / x.std())
    return None if 1 / _LIKE < ratio < _LIKE else ratio


def _unit(ratio: float) -> str:
    for factor, names in _UNITS.items():
        if any(abs(ratio * f - 1) < 0.2 for f in (factor, 1 / factor)):
            return f" ({names}?)"
    return ""


def pauses(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Times in which nothing that moves elsewhere moves."""
    moving = np.zeros(recording.store.n_steps, bool)
    for key, changes in recording.changes.items():
        if key.startswith("next.") or "timestamp" in key:
            continue
        span = np.ptp(np.nan_to_num(recording.vectors[key]), axis=0)
        moving |= (np.abs(np.nan_to_num(changes)) > _STILL * span).any(axis=1)
    fps = recording.store.fps
    least = round(_PAUSE_S * fps) if fps else _PAUSE_STEPS
    found = {}
    for episode in range(recording.n_episodes):
        first, end = recording.bounds(episode)
        start, length = _longest_run(~moving[first + 1 : end])
        if length >= least:
            found[episode] = (start, length)
    if found:
        episode, (start, length) = max(found.items(), key=lambda item: item[1][1])
        seconds = f" ({length / fps:.1f} s)" if fps else ""
        yield (
            f"nothing moves for {least} steps or more in {_list(list(found))}; longest in episode "
            f"{episode} from step {start}, {length} steps{seconds}",
            list(found),
        )


def _longest_run(still: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.view(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest] - starts[longest])


def duplicates(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Episodes whose vectors are equal to those of an earlier one."""
    same = defaultdict(list)
    for episode in range(recording.n_episodes):
        rows = slice(*recording.bounds(episode))
        parts = [v[rows] for k, v in recording.vectors.items() if "timestamp" not in k]
        if parts:
            same[content_hash(parts)].append(episode)
    for episodes in same.values():
        if len(episodes) > 1:
            yield f"the same vectors are in {_list(episodes)}", episodes[1:]


def short_episodes(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Episodes that are far shorter than most."""
    lengths = recording.lengths
    episodes = np.flatnonzero(lengths < np.median(lengths) / 5).tolist()
    if episodes:
        yield f"there are {lengths[episodes].max()} steps or fewer in {_list(episodes)}", episodes


def tasks(recording: Recording) -> Iterator[tuple[str, Sequence[int]]]:
    """Episodes without the text that others have."""
    told = [recording.store.episode(i).task for i in range(recording.n_episodes)]
    silent = [i for i, task in enumerate(told) if not task]
    if 0 < len(silent) < len(told):
        yield f"there is no task text in {_list(silent)}", silent
    blank = Counter(task.strip().lower() for task in told if task)
    if len(blank) < len({task for task in told if task}):
        yield "some task texts differ in capitals or spaces alone", []


CHECKS: dict[str, Check] = {
    "not finite": not_finite,
    "jumps": jumps,
    "constant": constant,
    "swapped cameras": swapped_cameras,
    "still cameras": still_cameras,
    "gaps": gaps,
    "other units": other_units,
    "pauses": pauses,
    "duplicates": duplicates,
    "short episodes": short_episodes,
    "tasks": tasks,
}


def findings(recording: Recording) -> list[Finding]:
    """All that the checks find, after what cannot be read at all."""
    found = []
    with np.errstate(all="ignore"):  # values that are not finite are a finding of their own
        for name, check in CHECKS.items():
            for one in check(recording):
                message, episodes = (one, ()) if isinstance(one, str) else one
                found.append(Finding(name, message, tuple(int(i) for i in episodes)))
    broken = [Finding("cannot be read", message) for message in recording.broken.values()]
    return [*dict.fromkeys(broken), *found]


def _places(recording: Recording, steps: np.ndarray) -> str:
    """Where some steps are: the first few, and how many more."""
    named = [recording.place(int(step)) for step in steps[:_FEW]]
    text = ", ".join(f"episode {episode} step {step}" for episode, step in named)
    return text + (f" and {len(steps) - _FEW} more" if len(steps) > _FEW else "")


def _episodes(recording: Recording, steps: np.ndarray) -> list[int]:
    ends = recording.store.episode_ends
    return np.unique(np.searchsorted(ends, steps, side="right")).tolist()


def _list(episodes: Sequence[int]) -> str:
    """Numbers of episodes: the first few, and how many more."""
    word = "episode" if len(episodes) == 1 else "episodes"
    more = f" and {len(episodes) - _FEW} more" if len(episodes) > _FEW else ""
    return f"{word} {', '.join(map(str, episodes[:_FEW]))}{more}"
