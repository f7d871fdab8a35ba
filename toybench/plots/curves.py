"""Curves of the chosen settings, against local steps and against simulated time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.plots.style import MOST_LINES, Size, finite, legend_of, limits, line_style, panels, place_legend
from toybench.selection import distinctions, keys_of, label
from toybench.statistics import band

BANDS = 4  # of the best lines; more would hide each other
UNITS = {"loss": "loss (nats)", "accuracy": "accuracy"}


def numbers(settings: Sequence[Curves], metric: str = "loss", most: int = MOST_LINES) -> dict[str, Any]:
    """Means over the seeds, with 95 % t-intervals where there are two or more, the best settings by final loss first.

    Raises:
        ConfigError: a metric that one of the settings does not have.
    """
    for setting in settings:
        if metric not in setting.metrics:
            raise ConfigError("metric", f"must be one of {', '.join(setting.metrics)}, got {metric!r}")
    rows = distinctions([setting.run for setting in settings])
    order = sorted(range(len(settings)), key=lambda i: settings[i].final_loss.mean())
    lines = [{"settings": rows[i]} | line_of(settings[i], metric) for i in order[:most]]
    left_out = max(0, len(settings) - most)
    return {"metric": metric, "keys": keys_of(rows), "lines": lines, "left_out": left_out}


def line_of(setting: Curves, metric: str, spread: str = "interval") -> dict[str, Any]:
    """The mean curve of a setting over its seeds, and where there are two or more its 95 % t-interval, or its range."""
    values = np.asarray(setting.metrics[metric], float)
    mean, low, high = values[0], None, None
    if len(setting.seeds) > 1:
        with np.errstate(invalid="ignore", over="ignore"):  # of a diverged run
            mean, low, high = band(values)
            if spread == "range":
                low, high = values.min(0), values.max(0)
    return {
        "seeds": len(setting.seeds),
        "diverged": int(setting.diverged.sum()),
        "final_loss": setting.final_loss.mean(),
        "local_steps": setting.local_steps.mean(0),
        "time": setting.time.mean(0),
        "mean": mean,
        "low": low,
        "high": high,
    }


def draw(drawn: dict[str, Any], size: Size) -> Figure:
    """The `numbers`, a line a setting."""
    lines, keys = drawn["lines"], drawn["keys"]
    legend = legend_of(size, [_label(line, keys) for line in lines], _title(drawn))
    figure, (steps, time) = panels(size, 2, [2.1 if size.columns == 1 else 3.6] * 2, legend.height)
    handles = []
    for axes, against in ((steps, "local_steps"), (time, "time")):
        handles = []
        for i, line in enumerate(lines):
            handles += axes.plot(line[against], line["mean"], **line_style(i))
            if line["low"] is not None and i < BANDS:
                shade = {"color": line_style(i)["color"], "alpha": 0.15, "linewidth": 0}
                axes.fill_between(line[against], line["low"], line["high"], **shade)
        axes.set_ylim(limits_of(drawn))
        axes.set_ylabel(UNITS.get(drawn["metric"]) or drawn["metric"])
    steps.set_xlabel("local steps, all workers")
    time.set_xlabel("simulated time (s)")
    place_legend(figure, handles, legend)
    return figure


def limits_of(drawn: dict[str, Any]) -> tuple[float, float]:
    """Of a loss not above the untrained model's, over which a method may spike far."""
    lines, highest = drawn["lines"], math.inf
    means = finite(*(line["mean"] for line in lines))
    if drawn["metric"] == "loss":
        highest = max(finite(*(line["mean"][:1] for line in lines)), default=highest)
    bands = [line[side] for line in lines[:BANDS] for side in ("low", "high") if line[side] is not None]
    return limits(means, finite(*bands) if bands else means, highest)


def _label(line: dict[str, Any], keys: Sequence[str]) -> str:
    said = label(line["settings"], keys) or "the one setting"
    return said + (f" ({line['diverged']} of {line['seeds']} diverged)" if line["diverged"] else "")


def _title(drawn: dict[str, Any]) -> str:
    counts = sorted({line["seeds"] for line in drawn["lines"]})
    seeds = f"{counts[0]}–{counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed{'s'[: counts[0] > 1]}"
    said = [", ".join(drawn["keys"])] if drawn["keys"] else []
    if drawn["left_out"]:
        shown = len(drawn["lines"])
        said.append(f"the best {shown} of {shown + drawn['left_out']} by final loss")
    said.append(f"mean of {seeds}" + _bands(drawn["lines"]))
    return "; ".join(said)


def _bands(lines: Sequence[dict[str, Any]]) -> str:
    if not any(line["low"] is not None for line in lines[:BANDS]):
        return ""
    return "; bands: 95 % intervals" + (f" of the best {BANDS}" if len(lines) > BANDS else "")
