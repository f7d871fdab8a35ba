"""Curves of the chosen settings, against local steps and against simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from toybench.config import ConfigError
from toybench.curves import Curves
from toybench.plots.lines import BANDS, limits_of, line_of
from toybench.plots.style import MOST_LINES, Size, legend_of, line_style, panels, place_legend
from toybench.selection import distinctions, keys_of, label

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
