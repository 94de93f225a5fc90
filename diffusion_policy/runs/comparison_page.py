"""One HTML page to read several runs side by side, which needs no other file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from diffusion_policy.runs.history import LOSS, SCORE, SUCCESS, VALIDATION, History
from diffusion_policy.runs.plots import Style, group_curves, group_styles
from diffusion_policy.runs.settings import differences, labels, same_but_seed
from diffusion_policy.util.html_page import (
    MAX_EMBEDDED_VIDEO,
    Html,
    data_url,
    escaped,
    page,
    table,
    video,
)
from diffusion_policy.util.statistics import mean_and_half_width

_PANELS = {
    LOSS: "Training loss",
    VALIDATION: "Validation loss",
    SUCCESS: "Success rate, test seeds",
    SCORE: "Mean max reward, test seeds",
}
_LOGARITHMIC = (LOSS, VALIDATION)


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds only, best first, and how they are shown."""

    letter: str
    label: str
    style: Style
    runs: Sequence[History]

    @property
    def badge(self) -> Html:
        """Its letter on its colour."""
        return Html(f'<b class="badge" style="background: {self.style[0]}">{self.letter}</b>')


def comparison(histories: Sequence[History], source: str, videos_per_run: int) -> str:
    """The page.

    Args:
        histories: of at least one run.
        source: where they are from, for the top of the page.
        videos_per_run: of the last rollout, at most.
    """
    groups = _groups(histories)
    n = len(histories)
    sections = [
        f'<p class="source">{escaped(source)}</p>',
        "<h2>Scores</h2>",
        _scores(groups),
        "<p>Success rate and mean max reward are of the last rollout on test seeds; brackets hold "
        "the 95 % interval over its episodes. A mean over seeds has ± half its 95 % interval "
        "(Student's t), from the spread between seeds alone.</p>",
        "<h2>Curves</h2>",
        _legend(groups),
        f'<div class="panels">{"".join(_panels(groups))}</div>',
        "<h2>Settings that differ</h2>",
        _settings(groups),
        "<h2>Last rollouts</h2>",
        *_videos(groups, videos_per_run),
    ]
    return page(f"{n} run{'s' if n > 1 else ''} side by side", "\n".join(sections), _STYLE)


def _groups(histories: Sequence[History]) -> list[Group]:
    groups = [
        sorted(group, key=_merit, reverse=True)
        for group in same_but_seed(histories, lambda history: history.run.settings)
    ]
    groups.sort(key=_mean_merit, reverse=True)
    styles = group_styles(len(groups))
    runs = [[history.run for history in group] for group in groups]
    names = [(run[0].settings.get("name"), run[0].settings.get("task.name")) for run in runs]
    several = len(set(names)) > 1
    found = []
    for i, (group, name, label) in enumerate(zip(groups, names, labels(runs, names), strict=True)):
        shown = " on ".join(str(part) for part in name if part is not None)
        parts = [shown if several or not label else "", label]
        found.append(Group(_letter(i), ", ".join(filter(None, parts)), styles[i], group))
    return found


def _merit(history: History) -> tuple[float, float]:
    """Sorts by success rate, then reward; runs without a rollout come last."""
    return _or_least(history.success_rate), _or_least(history.score)


def _mean_merit(group: Sequence[History]) -> tuple[float, ...]:
    return tuple(sum(parts) / len(group) for parts in zip(*map(_merit, group), strict=True))


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _letter(i: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _scores(groups: Sequence[Group]) -> Html:
    header = ("Run", "State", "Seed", "Steps", "Success rate", "", "Mean max reward", "Best")
    bodies = [list(_score_rows(group)) for group in groups]
    return _scrolled(table(header, *bodies, name="runs"))


def _score_rows(group: Group) -> Iterator[list[Any]]:
    if len(group.runs) > 1:
        yield _mean_row(group)
    for history in group.runs:
        name = _breakable(history.run.name)
        if len(group.runs) == 1:
            name = Html(f"{group.badge} {name}<br><small>{_breakable(group.label)}</small>")
        else:
            name = Html(f'<span class="member">{name}</span>')
        yield [
            name,
            Html(f'<span class="{history.state}">{history.state}</span>'),
            "" if history.run.seed is None else history.run.seed,
            f"{history.n_steps:,}",
            _percent(history.success_rate),
            _interval(history),
            _score(history.score),
            _score(history.best_score),
        ]


def _mean_row(group: Group) -> list[Any]:
    def mean(of: Callable[[History], float], show: Callable[[float], str]) -> Html:
        values = [value for value in map(of, group.runs) if not math.isnan(value)]
        if not values:
            return Html("")
        centre, half_width = mean_and_half_width(values)
        spread = "" if math.isnan(half_width) else f" ± {show(float(half_width))}"
        return Html(f"<b>{show(float(centre))}</b>{spread}")

    steps = sorted(history.n_steps for history in group.runs)
    return [
        Html(f"{group.badge} <b>{_breakable(group.label)}</b>"),
        Html(f"mean of {len(group.runs)}"),
        "",
        f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}",
        mean(lambda history: history.success_rate, _percent),
        "",
        mean(lambda history: history.score, _score),
        mean(lambda history: history.best_score, _score),
    ]


def _breakable(text: str) -> Html:
    """``text`` that a narrow screen may break after a dot, slash, underscore or equals sign."""
    return Html(re.sub(r"([./_=])", r"\1<wbr>", escaped(text)))


def _percent(rate: float) -> str:
    return "" if math.isnan(rate) else f"{100 * rate:.1f} %"


def _score(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.3f}"


def _interval(history: History) -> str:
    ends = [history.rollout.get(f"test/success_ci_{end}") for end in ("low", "high")]
    return "" if None in ends else "[{:.1f}, {:.1f}]".format(*(100 * end for end in ends))


def _legend(groups: Iterable[Group]) -> Html:
    dashes = {"-": "none", "--": "6 3", ":": "2 3", "-.": "6 3 2 3"}
    entries = (
        f'<li><svg width="34" height="12" aria-hidden="true"><line x1="0" y1="6" x2="34" y2="6" '
        f'stroke="{group.style[0]}" stroke-width="3" stroke-dasharray="{dashes[group.style[1]]}"/>'
        f"</svg> <b>{group.letter}</b> {escaped(group.label)}</li>"
        for group in groups
    )
    thin = (
        ""
        if all(len(group.runs) == 1 for group in groups)
        else (
            "<p>Bold is the mean over seeds as far as all runs of it reach, thin a single run.</p>"
        )
    )
    return Html(f'<ul class="legend">{"".join(entries)}</ul>{thin}')


def _panels(groups: Sequence[Group]) -> Iterator[str]:
    for key, title in _PANELS.items():
        curves = [[history.curves[key] for history in group.runs] for group in groups]
        if not any(len(curve) for group in curves for curve in group):
            continue
        figure = group_curves(curves, [group.style for group in groups])
        axes = figure.axes[0]
        axes.set_title(title, loc="left")
        if key in _LOGARITHMIC:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        else:
            axes.set_ylim(-0.02, 1.02)
        yield f'<img alt="{escaped(title)} of each run over steps" src="{_svg(figure)}">'


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text: sharp, and small
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return data_url("image/svg+xml", buffer.getvalue())


def _settings(groups: Sequence[Group]) -> Html:
    columns = [(group, history.run) for group in groups for history in group.runs]
    differing = differences([run for _, run in columns])
    if not differing:
        return Html("<p>There are none.</p>")
    header = ("", *(Html(f"{group.badge}<br>{escaped(run.name)}") for group, run in columns))
    rows = ((_breakable(key), *map(_value, values)) for key, values in differing.items())
    return _scrolled(table(header, rows, name="settings"))


def _value(value: Any) -> str:
    return "null" if value is None else str(value)


def _scrolled(content: Html) -> Html:
    return Html(f'<div class="scroll" tabindex="0">{content}</div>')


def _videos(groups: Sequence[Group], per_run: int) -> Iterator[str]:
    for group in groups:
        for history in group.runs:
            yield f"<h3>{group.badge} {escaped(history.run.name)}</h3>"
            found = _last_videos(history.run.directory)
            small = [path for path in found if path.stat().st_size <= MAX_EMBEDDED_VIDEO]
            figures = [video(path, path.name, _caption(path, history)) for path in small[:per_run]]
            if figures:
                yield f'<div class="videos">{"".join(figures)}</div>'
            elif found and per_run:
                yield "<p>Its videos are too large for this page; they are in its media folder.</p>"
            else:
                yield "<p>No videos were recorded.</p>" if not found else "<p>Not shown.</p>"


def _last_videos(run: Path) -> list[Path]:
    """Of the last rollout that has some, test seeds first."""
    folders = sorted(run.glob("media/epoch=*"), key=lambda path: int(path.name.partition("=")[2]))
    for folder in reversed(folders):
        if found := sorted(folder.glob("*.mp4")):
            return sorted(found, key=lambda path: not path.name.startswith("test_"))
    return []


def _caption(path: Path, history: History) -> Html:
    """From a name such as test_100000_success.mp4."""
    match = re.fullmatch(r"(\w+?)_(\d+)_(success|failure)", path.stem)
    if match is None:
        return escaped(path.stem)
    group, seed, outcome = match.groups()
    reward = history.rollout.get(f"{group}/sim_max_reward_{seed}")
    rewarded = "" if reward is None else f", max reward {reward:.3f}"
    return Html(f'{group} seed {seed}: <b class="{outcome}">{outcome}</b>{rewarded}')


_STYLE = """
body { max-width: 1240px; }
h3 { font-size: 1em; margin: 1.4em 0 0.4em; }
.badge { color: #fff; border-radius: 4px; padding: 0 0.45em; font-size: 0.85em; }
.scroll { overflow-x: auto; }
.runs, .settings { white-space: nowrap; border-spacing: 0; border-collapse: separate; }
.runs { min-width: 100%; }
th { font-size: 0.87em; font-weight: 600; color: #555; vertical-align: bottom; }
th, td { padding: 0.3em 0.7em; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: #fff;
        padding-left: 0; }
.runs td:nth-child(2), .runs th:nth-child(2) { text-align: left; }
.runs td:nth-child(6) { text-align: left; padding-left: 0; color: #666; }
.runs tbody + tbody tr:first-child td { border-top: 2px solid #bbb; }
.runs small { color: #666; } .member { padding-left: 2em; }
.settings td:first-child { font-family: ui-monospace, monospace; font-size: 0.87em;
        border-right: 1px solid #ddd; padding-right: 1.2em; }
.settings th:not(:first-child) { white-space: normal; overflow-wrap: anywhere; max-width: 9em; }
.settings td:not(:first-child) { max-width: 16em; overflow: hidden; text-overflow: ellipsis; }
.finished { color: #2a7f4f; } .running { color: #0072b2; } .stopped { color: #b5483a; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2em 2em; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
        gap: 1em; }
.panels img { width: 100%; }
@media (max-width: 600px) {
  body { margin: 1em auto; }
  .runs td:first-child, .settings td:first-child { white-space: normal;
        min-width: 7em; max-width: 40vw; }
  .member { padding-left: 0.8em; display: block; }
  figure { width: 100%; }
}
"""
