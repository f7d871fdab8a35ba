"""What the figures share: sizes, colours, legends that cover nothing, and their bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toybench.config import ConfigError
from toybench.plots.lines import COLOURS

FORMATS = ("png", "pdf", "svg")
MOST_LINES = 10  # that can be told apart


class Size(NamedTuple):
    """A figure's width and what goes with it."""

    width: float  # inches
    font: float  # points
    line: float  # points
    dpi: int
    columns: int  # panels beside each other, at most


SIZES = {
    "paper": Size(width=3.3, font=8, line=1.1, dpi=300, columns=1),  # a column of a two-column page
    "screen": Size(width=9.5, font=10.5, line=1.8, dpi=130, columns=2),
}

DASHES = ("-", (0, (4, 1.5)))


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th line."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}


@contextmanager
def styled(size: Size) -> Iterator[None]:
    """Fonts and lines of a size, within; text that stays text in vector files."""
    settings: Any = {
        "font.size": size.font,
        "axes.titlesize": size.font,
        "axes.labelsize": size.font,
        "legend.fontsize": size.font - 0.5,
        "legend.title_fontsize": size.font - 0.5,
        "xtick.labelsize": size.font - 0.5,
        "ytick.labelsize": size.font - 0.5,
        "lines.linewidth": size.line,
        "lines.markersize": 3.5 * size.line,
        "hatch.linewidth": 0.6 * size.line,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.5,
        "legend.frameon": False,
        "legend.handlelength": 2.2,
        "figure.dpi": size.dpi,
        "savefig.dpi": size.dpi,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "toybench",
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(settings):
        yield


def panels(size: Size, count: int, heights: Sequence[float], extra: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, as many beside each other as the size allows, filled row by row.

    Args:
        size: of the figure.
        count: panels.
        heights: of the panels, inches; a row is as high as its highest.
        extra: inches for what stands below the panels.
    """
    columns = min(size.columns, count)
    rows = [max(heights[i : i + columns]) for i in range(0, count, columns)]
    figure = Figure(figsize=(size.width, sum(rows) + extra), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), columns, height_ratios=rows)
    places = [grid[i // columns, i % columns] for i in range(count)]
    if count % columns:  # the last takes what is left of its row
        places[-1] = grid[-1, (count - 1) % columns :]
    return figure, [figure.add_subplot(place) for place in places]


class Legend(NamedTuple):
    """A legend below the panels: its entries and title broken into lines, and its height."""

    labels: list[str]
    title: str
    columns: int
    height: float  # inches


def legend_of(size: Size, labels: Sequence[str], title: str = "") -> Legend:
    """How a legend of these labels will stand below the panels."""
    letters = int(size.width * 72 / (0.52 * size.font))
    columns = 1 if max(map(len, labels), default=0) > letters / 2 - 8 or len(labels) < 4 else 2
    broken = [textwrap.fill(label, letters // columns - 8) for label in labels]
    title = textwrap.fill(title, letters - 4)
    lines = sum(label.count("\n") + 1 for label in broken) / columns + (title.count("\n") + 1 if title else 0) + 1.5
    return Legend(broken, title, columns, lines * 1.25 * size.font / 72)


def place_legend(figure: Figure, handles: Sequence[Any], legend: Legend) -> None:
    """Below the panels, where there is nothing to cover."""
    figure.legend(
        handles,
        legend.labels,
        title=legend.title or None,
        loc="outside lower center",
        ncols=legend.columns,
        alignment="left",
        borderaxespad=0.2,
        labelspacing=0.25,
    )


def figure_path(text: str) -> Path:
    """Where a figure goes; its folder is made if it is not there.

    Raises:
        ConfigError: a name that says no format, or a place that cannot be written to.
    """
    from toybench.records import writable_folder

    path = Path(text)
    if path.suffix.lower().removeprefix(".") not in FORMATS or path.is_dir():
        raise ConfigError("out", f"expected the path of a file .{', .'.join(FORMATS)}, got {text!r}")
    writable_folder(path.parent)
    return path


def rendered(figure: Figure, path: Path) -> bytes:
    """A figure in the format of the path's suffix; equal figures give equal bytes."""
    kind, buffer = path.suffix.lower().removeprefix("."), io.BytesIO()
    dated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    figure.savefig(buffer, format=kind, metadata=dated)
    return buffer.getvalue()
