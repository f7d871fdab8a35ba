"""Final loss against the outer rate, or another number that was swept, and where each line is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator

from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.plots.lines import finite, limits
from toybench.plots.style import MOST_LINES, Size, legend_of, line_style, panels, place_legend
from toybench.selection import keys_of, label, split, value_of
from toybench.statistics import interval

RATE = "outer.lr"
BEST = {None: "*", "low": "<", "high": ">"}  # markers: bracketed; at the low, at the high edge of its range


def numbers(settings: Sequence[Curves], most: int = MOST_LINES, key: str = RATE, *, log: bool = True) -> dict[str, Any]:
    """A line for each combination of the other keys that differ, the best first; one rate makes no line.

    A diverged run counts as the untrained model. Left out is what has no place on the axis: rates of zero, if `log`.

    Args:
        settings: what was run.
        most: lines.
        key: whose values are taken for the rates; a setting of numbers.
        log: whether the axis is logarithmic.

    Raises:
        ConfigError: no combination has two rates.
    """
    placed = [setting for setting in settings if _has_place(value_of(setting.run, key), log)]
    if len({value_of(setting.run, key) for setting in placed}) < 2:
        above = " above 0" if log else ""
        raise ConfigError(key, f"expected two rates{above} or more, got {_rates(placed, key) or 'none'}")
    groups = split(placed, key)
    lines = [_line(rest, group, key) for rest, group in groups if len(group) > 1]
    if not lines:
        keys = ", ".join(keys_of([rest for rest, _ in groups]))
        raise ConfigError(key, f"every combination of {keys} has one rate only; --where chooses, or sweep more rates")
    lines = sorted(lines, key=lambda line: line["best"]["loss"])
    return {
        "keys": keys_of([line["settings"] for line in lines]),
        "lines": lines[:most],
        "left_out": max(0, len(lines) - most),
        "single": len(groups) - len(lines),
        "zero": len(settings) - len(placed),
    }


def _has_place(value: Any, log: bool) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (value > 0 or not log)


def _rates(settings: Sequence[Curves], key: str) -> str:
    return ", ".join(f"{rate:g}" for rate in sorted({value_of(setting.run, key) for setting in settings}))


def _line(rest: dict[str, Any], group: Sequence[Curves], key: str) -> dict[str, Any]:
    group = sorted(group, key=lambda setting: value_of(setting.run, key))
    losses = [setting.final_loss for setting in group]
    spread = [interval(loss) if len(loss) > 1 else None for loss in losses]
    mean = [float(loss.mean()) for loss in losses]
    best = int(np.argmin(mean))
    edge = {0: "low", len(group) - 1: "high"}.get(best)
    return {
        "settings": rest,
        "rates": [value_of(setting.run, key) for setting in group],
        "mean": mean,
        "low": [s and s.low for s in spread],
        "high": [s and s.high for s in spread],
        "seeds": [len(setting.seeds) for setting in group],
        "diverged": [int(setting.diverged.sum()) for setting in group],
        "best": {"rate": value_of(group[best].run, key), "loss": mean[best], "edge": edge},
    }


def draw(drawn: dict[str, Any], size: Size) -> Figure:
    """The `numbers`, a line a combination, on a logarithmic axis of rates."""
    lines = drawn["lines"]
    keyed = [(Line2D([], [], **line_style(i)), _label(line, drawn["keys"])) for i, line in enumerate(lines)]
    keyed += _markers(lines, size)
    legend = legend_of(size, [said for _, said in keyed], _title(drawn))
    figure, [axes] = panels(size, 1, [2.4 if size.columns == 1 else 4.6], legend.height)
    for i, line in enumerate(lines):
        colour = line_style(i)["color"]
        axes.plot(line["rates"], line["mean"], marker=".", **line_style(i))
        low, high = ([math.nan if v is None else v for v in line[side]] for side in ("low", "high"))
        axes.fill_between(line["rates"], low, high, color=colour, alpha=0.15, linewidth=0)
        failed = [(r, m) for r, m, d in zip(line["rates"], line["mean"], line["diverged"]) if d]
        axes.plot(*zip(*failed), linestyle="", marker="x", color="0.25", zorder=3) if failed else None
        best = line["best"]
        axes.plot(best["rate"], best["loss"], marker=BEST[best["edge"]], **_best(size, colour, best["edge"]))
    axes.set(xscale="log", xlabel="outer learning rate", ylabel="final loss (nats)", ylim=_limits(lines))
    _ticks(axes, {rate for line in lines for rate in line["rates"]}, size)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.minorticks_off()
    place_legend(figure, [handle for handle, _ in keyed], legend)
    return figure


def _ticks(axes: Axes, rates: set[float], size: Size) -> None:
    """At the rates where they are few, else at round numbers."""
    apart = min(b / a for a, b in pairwise(sorted(rates)))
    if len(rates) <= 7 and apart > 1.4:
        axes.xaxis.set_major_locator(FixedLocator(sorted(rates)))
        return
    wide = max(rates) / min(rates) > 10 ** (size.columns + 1.5)  # too many decades for 2 and 5 to have room
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))


def _best(size: Size, colour: str, edge: str | None) -> dict[str, Any]:
    face = "white" if edge else colour
    return {"markersize": 6.5 * size.line, "markeredgecolor": colour, "markerfacecolor": face, "zorder": 4}


def _limits(lines: Sequence[dict[str, Any]]) -> tuple[float, float]:
    bands = [v for line in lines for side in ("low", "high") for v in line[side] if v is not None]
    return limits(finite(*(line["mean"] for line in lines)), np.array(bands))


def _markers(lines: Sequence[dict[str, Any]], size: Size) -> list[tuple[Line2D, str]]:
    """What the markers mean, of those that are drawn."""
    found: list[tuple[Line2D, str]] = []
    plain: dict[str, Any] = {"color": "0.25", "linestyle": "", "markersize": 5 * size.line}
    if any(line["best"]["edge"] is None for line in lines):
        found.append((Line2D([], [], marker="*", **plain), "best rate"))
    for edge in ("low", "high"):
        if any(line["best"]["edge"] == edge for line in lines):
            said = f"best at the {edge} edge of its range: the optimum may lie beyond"
            found.append((Line2D([], [], marker=BEST[edge], markerfacecolor="white", **plain), said))
    if any(any(line["diverged"]) for line in lines):
        found.append((Line2D([], [], marker="x", **plain), "some seeds diverged, counted as the untrained model"))
    return found


def _label(line: dict[str, Any], keys: Sequence[str]) -> str:
    said, best = label(line["settings"], keys), line["best"]
    return (f"{said}: " if said else "") + f"best {best['rate']:g}" + (" (edge)" if best["edge"] else "")


def _title(drawn: dict[str, Any]) -> str:
    said = [", ".join(drawn["keys"])] if drawn["keys"] else []
    if drawn["left_out"]:
        said.append(f"the best {len(drawn['lines'])} of {len(drawn['lines']) + drawn['left_out']} lines")
    counts = sorted({count for line in drawn["lines"] for count in line["seeds"]})
    seeds = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    said.append(f"mean of {seeds} seed{'s'[: counts[-1] > 1]}" + (", 95 % interval" if counts[-1] > 1 else ""))
    if drawn["single"]:
        said.append(f"{drawn['single']} with one rate only left out")
    if drawn["zero"]:
        said.append("rates of 0 left out")
    return "; ".join(said)
