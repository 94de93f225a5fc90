"""One HTML page that shows several runs side by side and needs no other file."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator

from diffusion_policy.runs.plots import Style, group_curves, group_styles
from diffusion_policy.runs.run import Run
from diffusion_policy.runs.run_log import number
from diffusion_policy.runs.settings import (
    differences,
    experiments,
    is_seed,
    labels,
    shown_setting,
)
from diffusion_policy.util.html_page import (
    MAX_EMBEDDED_VIDEO,
    data_url,
    render,
    svg,
    video_url,
)
from diffusion_policy.util.statistics import mean_and_half_width, mean_by_key
from diffusion_policy.workspace.curves import score_limits

LOSS, VALIDATION = "train_loss", "val_loss"
SUCCESS, SCORE = "test/success_rate", "test/mean_score"
KEYS = (LOSS, VALIDATION, SUCCESS, SCORE)
"""What the page reads from the log of a run."""
_TITLES = {
    LOSS: "Training loss",
    VALIDATION: "Validation loss",
    SUCCESS: "Success rate, test episodes",
    SCORE: "Mean max reward, test episodes",
}
_LOGARITHMIC = (LOSS, VALIDATION)
_SCORES = ("Success rate", "Mean max reward", "Best reward", "Least validation loss")


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds only, best first, and how the page shows them."""

    letter: str
    label: str
    style: Style
    runs: Sequence[Run]

    @property
    def seeds(self) -> list[Hashable]:
        """Of each run; one whose seed is not known is no repeat of another."""
        return [run.directory if run.seed is None else run.seed for run in self.runs]

    @property
    def size(self) -> str:
        """What a mean over the group is a mean of."""
        n_runs, n_seeds = len(self.runs), len(set(self.seeds))
        seeds = f"{n_seeds} seed{'s' if n_seeds > 1 else ''}"
        return seeds if n_seeds == n_runs else f"{seeds}, {n_runs} runs"


@dataclass(frozen=True)
class Row:
    """A row of the table of scores: a run, or the mean of a group. Texts, as the page shows them.

    Attributes:
        kind: ``mean``, ``member`` (of a group with a mean) or ``alone``.
        scores: value and 95 % interval of each of :data:`_SCORES`.
    """

    kind: str
    name: str
    state: str
    seed: Any
    steps: str
    scores: Sequence[tuple[str, str]]


def comparison(runs: Sequence[Run], source: str, videos_per_run: int) -> str:
    """Return the page.

    Args:
        runs: at least one run, with :data:`KEYS` read.
        source: where the runs come from, for the top of the page.
        videos_per_run: number of videos of the last rollout to show, at most.
    """
    begun = [run for run in runs if run.has_begun]
    groups = _groups(begun)
    return render(
        "runs/comparison.html",
        title=f"{len(runs)} run{'s' if len(runs) > 1 else ''} side by side",
        source=source,
        scores=[(group, list(_rows(group))) for group in groups],
        shown=_shown_scores(begun),
        failed_starts=[run.name for run in runs if not run.has_begun],
        groups=groups,
        means=any(len(group.runs) > 1 for group in groups),
        curves=list(_curves(groups)),
        settings=_settings(groups),
        videos=[
            (group, run, _videos(run, videos_per_run)) for group in groups for run in group.runs
        ],
    )


def _groups(runs: Sequence[Run]) -> list[Group]:
    found = [sorted(group, key=_merit, reverse=True) for group in experiments(runs)]
    found.sort(key=_mean_merit, reverse=True)
    names = [(run[0].settings.get("name"), run[0].settings.get("task.name")) for run in found]
    several = len(set(names)) > 1
    groups = []
    for i, (group, name, label, style) in enumerate(
        zip(found, names, labels(found, names), group_styles(len(found)), strict=True)
    ):
        shown = " on ".join(str(part) for part in name if part is not None)
        parts = [shown if several or not label else "", label]
        groups.append(Group(_letter(i), ", ".join(filter(None, parts)), style, group))
    return groups


def _rollout(run: Run) -> Mapping[str, Any]:
    """The last record with a rollout on test episodes; empty if there is none."""
    return run.log.last_with.get(SCORE, {})


def _last(run: Run, key: str) -> float:
    """The score ``key`` of the last rollout; NaN without one."""
    return number(_rollout(run).get(key))


def _best(run: Run) -> float:
    """The best mean max reward of a rollout; NaN without one."""
    return float(run.log.curve(SCORE)[:, 1].max(initial=-math.inf)) if _rollout(run) else math.nan


def _least_loss(run: Run) -> float:
    """The least validation loss; NaN without one."""
    losses = run.log.curve(VALIDATION)[:, 1]
    return float(losses.min()) if len(losses) else math.nan


def _merit(run: Run) -> tuple[float, ...]:
    """Sorts by success rate, then reward, then validation loss; what is missing comes last."""
    scores = (_last(run, SUCCESS), _last(run, SCORE), -_least_loss(run))
    return tuple(-math.inf if math.isnan(score) else score for score in scores)


def _mean_merit(group: Sequence[Run]) -> tuple[float, ...]:
    return tuple(sum(parts) / len(group) for parts in zip(*map(_merit, group), strict=True))


def _letter(i: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _rows(group: Group) -> Iterator[Row]:
    if len(group.runs) > 1:
        yield _mean_row(group)
    for run in group.runs:
        yield Row(
            kind="member" if len(group.runs) > 1 else "alone",
            name=run.name,
            state=run.state,
            seed="" if run.seed is None else run.seed,
            steps=f"{run.n_steps:,}",
            scores=[
                (_percent(_last(run, SUCCESS)), _interval(run)),
                (_reward(_last(run, SCORE)), ""),
                (_reward(_best(run)), ""),
                (_loss(_least_loss(run)), ""),
            ],
        )


def _shown_scores(runs: Sequence[Run]) -> list[tuple[int, str]]:
    """Index and title of the scores to show: the loss stands in where a run has no rollout."""
    rolled_out = [bool(_rollout(run)) for run in runs]
    rated = any(not math.isnan(_last(run, SUCCESS)) for run in runs)
    is_shown = (rated, any(rolled_out), any(rolled_out), not all(rolled_out))
    return [(i, title) for i, title in enumerate(_SCORES) if is_shown[i]]


def _mean_row(group: Group) -> Row:
    def mean(of: Callable[[Run], float], show: Callable[[float], str]) -> tuple[str, str]:
        known = [
            (value, seed)
            for value, seed in zip(map(of, group.runs), group.seeds, strict=True)
            if not math.isnan(value)
        ]
        if not known:
            return "", ""
        means = mean_by_key(*zip(*known, strict=True))
        centre, half_width = map(float, mean_and_half_width(means))
        spread = [] if math.isnan(half_width) else [f"± {show(half_width)}"]
        left_out = len(means) < len(set(group.seeds))
        return show(centre), ", ".join([*spread, *([f"{len(means)} seeds"] if left_out else [])])

    steps = [f"{n:,}" for n in sorted(run.n_steps for run in group.runs)]
    return Row(
        kind="mean",
        name=group.label,
        state=f"mean of {group.size}",
        seed="",
        steps=" to ".join(dict.fromkeys([steps[0], steps[-1]])),
        scores=[
            mean(lambda run: _last(run, SUCCESS), _percent),
            mean(lambda run: _last(run, SCORE), _reward),
            mean(_best, _reward),
            mean(_least_loss, _loss),
        ],
    )


def _percent(rate: float) -> str:
    return "" if math.isnan(rate) else f"{100 * rate:.1f} %"


def _reward(reward: float) -> str:
    return "" if math.isnan(reward) else f"{reward:.3f}"


def _loss(loss: float) -> str:
    return "" if math.isnan(loss) else f"{loss:.4g}"


def _interval(run: Run) -> str:
    low, high = _last(run, "test/success_ci_low"), _last(run, "test/success_ci_high")
    return "" if math.isnan(low + high) else f"[{100 * low:.1f}, {100 * high:.1f}]"


def _curves(groups: Sequence[Group]) -> Iterator[tuple[str, str]]:
    """Title and image of each of :data:`KEYS` that a run has logged."""
    for key, title in _TITLES.items():
        curves = [[run.log.curve(key) for run in group.runs] for group in groups]
        if not any(len(curve) for group in curves for curve in group):
            continue
        styles, seeds = [group.style for group in groups], [group.seeds for group in groups]
        figure = group_curves(curves, styles, seeds)
        axes = figure.axes[0]
        axes.set_title(title, loc="left")
        if key in _LOGARITHMIC:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        elif limits := score_limits(
            value for group in curves for curve in group for value in curve[:, 1]
        ):
            axes.set_ylim(limits)
        yield title, data_url("image/svg+xml", svg(figure))


def _settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Each setting that differs, and its value in each group.

    Within a group runs differ in seeds, and in what has no effect.
    """
    runs = [run for group in groups for run in group.runs]
    table = []
    for key, values in differences(runs).items():
        rest = iter(values)
        cells = [_cell(key, group, list(islice(rest, len(group.runs)))) for group in groups]
        table.append((key, cells))
    return table


def _cell(key: str, group: Group, values: Sequence[Any]) -> str:
    texts = [shown_setting(value) for value in values]
    if len(set(texts)) == 1 or is_seed(key):
        return ", ".join(dict.fromkeys(texts))
    pairs = zip(texts, group.runs, strict=True)
    return ", ".join(f"{text} ({run.name})" for text, run in pairs)


def _videos(run: Run, n: int) -> tuple[list[dict[str, str]], str]:
    """At most ``n`` videos of the last rollout, and a remark if there are none."""
    found = _last_videos(run.directory)
    small = [path for path in found if path.stat().st_size <= MAX_EMBEDDED_VIDEO][:n]
    if small:
        return [{"url": video_url(path, path.name), **_caption(path, run)} for path in small], ""
    if not found:
        return [], "No videos were recorded."
    if n == 0:
        return [], "Not shown."
    return [], "The videos are too large for this page; see the media folder of the run."


def _last_videos(run: Path) -> list[Path]:
    """Videos of the last rollout that has some; test episodes come first."""
    folders = sorted(run.glob("media/epoch=*"), key=lambda path: (len(path.name), path.name))
    for folder in reversed(folders):
        # What a link leads to is no video of the run, and need not be one at all.
        if found := sorted(p for p in folder.glob("*.mp4") if p.is_file() and not p.is_symlink()):
            return sorted(found, key=lambda path: not path.name.startswith("test_"))
    return []


def _caption(path: Path, run: Run) -> dict[str, str]:
    """Start, outcome and reward of an episode, from a file name like test_100000_success.mp4."""
    start, _, outcome = path.stem.rpartition("_")
    for key, reward in _rollout(run).items():
        group, found, name = key.partition("/sim_max_reward_")
        if found and f"{group}_{name}" == start:
            label = f"{group} seed {name}" if name.isdigit() else f"{group} {name}"
            return {"name": label, "outcome": outcome, "reward": _reward(number(reward))}
    return {"name": start, "outcome": outcome, "reward": ""}
