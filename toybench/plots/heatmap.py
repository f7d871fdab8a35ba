"""Mean final loss over two swept keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.plots.style import Size, legend_of, panels, place_legend
from toybench.selection import keys_of, split, text, value_of


def numbers(settings: Sequence[Curves], x: str, y: str) -> dict[str, Any]:
    """The mean final loss of each cell, rows along `y`; null where nothing was run. Diverged runs count as untrained.

    Raises:
        ConfigError: a key that does not vary, one key twice, or other keys that vary as well.
    """
    if x == y:
        raise ConfigError("y", f"expected another key than --x, got {y} twice")
    groups = split(settings, x, y)
    if len(groups) > 1:
        others = ", ".join(keys_of([rest for rest, _ in groups]))
        raise ConfigError("where", f"{others} vary too: one value of each is needed; --where KEY=VALUE chooses it")
    return cells(settings, x, y)


def cells(settings: Sequence[Curves], x: str, y: str) -> dict[str, Any]:
    """`numbers` of settings that are known to differ in two keys alone, if at all."""
    columns, rows = (values_of([setting.run for setting in settings], key) for key in (x, y))
    shape = (len(rows), len(columns))
    mean, seeds, diverged = np.full(shape, math.nan), np.zeros(shape, int), np.zeros(shape, int)
    for setting in settings:
        cell = rows.index(value_of(setting.run, y)), columns.index(value_of(setting.run, x))
        mean[cell], seeds[cell], diverged[cell] = setting.final_loss.mean(), len(setting.seeds), setting.diverged.sum()
    i, j = np.unravel_index(np.nanargmin(mean), shape)
    best = {"x": columns[j], "y": rows[i], "loss": mean[i, j]}
    axes = {"x": x, "y": y, "x_values": columns, "y_values": rows}
    return axes | {"mean": mean, "seeds": seeds, "diverged": diverged, "best": best}


def values_of(runs: Sequence[Run], key: str) -> list[Any]:
    """The values of a key: numbers and lists of them ascending, names as they come, what is not given first."""
    values = list(dict.fromkeys(value_of(run, key) for run in runs))
    given = [value for value in values if value is not None]
    if not any(isinstance(value, (str, bool)) for value in given):
        given = sorted(given)
    return [None] * (None in values) + given


def draw(drawn: dict[str, Any], size: Size) -> Figure:
    """The `numbers` as cells, with their losses where there is room."""
    mean, diverged = np.asarray(drawn["mean"], float), np.asarray(drawn["diverged"])
    keyed = _keyed(mean, diverged)
    legend = legend_of(size, [said for _, said in keyed], _title(drawn))
    height = min(max(0.32 * len(mean) * size.font / 8, 1.2), size.width / size.columns)  # of the cells, inches
    figure, [axes] = panels(size, 1, [height + 0.9], legend.height)
    low, high = np.nanmin(mean), np.nanmax(mean)
    style: Any = {"cmap": "viridis_r", "aspect": "auto", "origin": "lower"}
    shown = axes.imshow(np.ma.masked_invalid(mean), vmin=low, vmax=high if high > low else low + 1.0, **style)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for i, j in zip(*np.nonzero(diverged)):
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", edgecolor="0.6", linewidth=0))
    for i, j in zip(*np.nonzero(np.isnan(mean))):
        axes.text(j, i, "·", ha="center", va="center")
    i, j = np.unravel_index(np.nanargmin(mean), mean.shape)
    marked: Any = {"fill": False, "edgecolor": "#D55E00", "linewidth": 2 * size.line, "zorder": 4, "clip_on": False}
    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **marked))
    _write_losses(axes, drawn, size, shown)
    _ticks(axes, drawn, size, height)
    bar = figure.colorbar(shown, ax=axes, label="mean final loss (nats)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    place_legend(figure, [handle for handle, _ in keyed], legend)
    return figure


def _keyed(mean: np.ndarray, diverged: np.ndarray) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = [(Patch(fill=False, edgecolor="#D55E00", linewidth=2), "best")]
    if diverged.any():
        found.append((Patch(fill=False, hatch="////", edgecolor="0.6", linewidth=0), "some seeds diverged"))
    if np.isnan(mean).any():
        found.append((Line2D([], [], linestyle="", marker=".", markersize=2, color="black"), "not run"))
    return found


def _title(drawn: dict[str, Any]) -> str:
    counts = sorted(set(np.asarray(drawn["seeds"]).ravel().tolist()) - {0})
    return f"{counts[0]}–{counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed{'s'[: counts[0] > 1]}"


def _room(drawn: dict[str, Any], size: Size) -> float:
    """Points that a cell is about wide, beside the labels of its row and the bar of colours."""
    labels = max(len(text(value)) for value in drawn["y_values"]) * 0.6 * size.font
    return (72 * size.width - labels - 8 * size.font - 0.14 * 72 * size.width) / len(drawn["x_values"])


def _write_losses(axes: Axes, drawn: dict[str, Any], size: Size, shown: AxesImage) -> None:
    """The loss in each cell, if four letters fit."""
    mean, room = np.asarray(drawn["mean"], float), _room(drawn, size)
    if room < 4 * 0.6 * (size.font - 1) or len(mean) > 24:
        return
    digits = 3 if room > 5 * 0.62 * (size.font - 1) else 2
    for (i, j), loss in np.ndenumerate(mean):
        if math.isfinite(loss):
            colour = "white" if float(np.asarray(shown.norm(loss))) > 0.45 else "black"
            said = f"{loss:.{digits}f}" if abs(loss) < 100 else f"{loss:.0f}"
            written = axes.text(j, i, said, ha="center", va="center", color=colour, fontsize=size.font - 1)
            written.set_path_effects([withStroke(linewidth=2.5, foreground=shown.to_rgba(loss))])  # hatches end at it


def _ticks(axes: Axes, drawn: dict[str, Any], size: Size, height: float) -> None:
    """The values as they are; every second, third, … where they would overlap, turned where they are long."""
    columns, rows = ([text(value) for value in drawn[f"{name}_values"]] for name in ("x", "y"))
    room = _room(drawn, size)
    letter = 0.58 * (size.font - 0.5)
    turned = max(map(len, columns)) * letter > 0.95 * room
    step = max(1, math.ceil(1.3 * size.font / room)) if turned else 1
    places = range(0, len(columns), step)
    style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(places, [columns[i] for i in places], **style)
    step = math.ceil(len(rows) * 1.3 * size.font / (72 * height))
    axes.set_yticks(range(0, len(rows), step), rows[::step])
    axes.tick_params(length=0)
    axes.set(xlabel=drawn["x"], ylabel=drawn["y"])
