"""What the probes of a run saw: momentum against pseudo-gradients, norms, losses, workers against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from toybench.config import ConfigError
from toybench.plots.lines import COLOURS, finite
from toybench.plots.style import Size, panels

COLUMNS = ("local_steps", "staleness", "loss", "pseudo_gradient_norm", "step_norm", "momentum_norm", "momentum_cosine")
OPTIONAL = ("momentum_norm", "momentum_cosine")  # null where the method keeps no momentum
NORMS = {"pseudo_gradient_norm": "pseudo-gradient", "momentum_norm": "momentum", "step_norm": "server's step"}


def numbers(document: Any) -> dict[str, Any]:
    """The probes in the document of a run, with the mean cosine at each staleness, and that of each pair of workers.

    Raises:
        ConfigError: the document has none, or they are not of the form that `toybench run --probe` writes.
    """
    probes = document.get("probes") if isinstance(document, dict) else None
    if probes is None:
        raise ConfigError("probes", "there are none; `toybench run --probe --out DIR` writes them into DIR/run.json")
    try:
        arrivals = {name: _column(probes["arrivals"][name], name in OPTIONAL) for name in COLUMNS}
        matrices = np.array(probes["workers"]["cosines"], float)
        seed, method = int(probes["seed"]), str(document["run"]["outer"]["method"])
        formed = matrices.ndim == 3 and matrices.shape[1] == matrices.shape[2] > 0 < len(matrices)
        lengths = {len(column) for column in arrivals.values() if column is not None}
    except (KeyError, TypeError, ValueError):
        formed, lengths = False, set()
    if not formed or len(lengths) != 1 or lengths == {0}:
        raise ConfigError("probes", "not of the form that `toybench run --probe` writes")
    whole = matrices[np.isfinite(matrices).all((1, 2))]
    between = whole.mean(0) if len(whole) else np.full(matrices.shape[1:], np.nan)
    staleness, cosine = arrivals["staleness"], arrivals["momentum_cosine"]
    return {
        "seed": seed,
        "method": method,
        "arrivals": arrivals,
        "cosine_by_staleness": None if cosine is None else _by_staleness(staleness, cosine),
        "worker_cosines": between,
        "matrices": len(whole),
    }


def _column(values: Any, optional: bool) -> np.ndarray | None:
    """A column of the arrivals [E]; null in it is not a number, null instead of it where it may be lacking is None."""
    return None if values is None and optional else np.array(values, float)


def _by_staleness(staleness: Any, cosine: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(cosine)
    values = np.unique(staleness[known])
    means = [cosine[known & (staleness == value)].mean() for value in values]
    return {"staleness": values.astype(int), "mean": means}


def draw(drawn: dict[str, Any], size: Size) -> Figure:
    """The `numbers`, a panel each: momentum cosine where there is a momentum, norms, losses, workers."""
    arrivals = drawn["arrivals"]
    draws = [_draw_norms, _draw_workers, _draw_loss]
    if arrivals["momentum_cosine"] is not None:
        draws.insert(0, _draw_cosine)
    flat, square = (1.75, 2.2) if size.columns == 1 else (3.3, 3.3)
    heights = [square if one is _draw_workers else flat for one in draws]
    figure, places = panels(size, len(draws), heights, 0.3)
    for one, axes in zip(draws, places):
        one(figure, axes, drawn, size)
    momentum = "" if arrivals["momentum_cosine"] is not None else " (keeps no momentum)"
    figure.suptitle(f"{drawn['method']}{momentum}, seed {drawn['seed']}", fontsize=size.font)
    return figure


def _draw_cosine(figure: Figure, axes: Axes, drawn: dict[str, Any], size: Size) -> None:
    arrivals = drawn["arrivals"]
    steps, cosine, staleness = (arrivals[name] for name in ("local_steps", "momentum_cosine", "staleness"))
    colours = ScalarMappable(Normalize(0, max(staleness.max(), 1)), "viridis_r")
    axes.scatter(steps, cosine, c=colours.to_rgba(staleness), s=7 * size.line, linewidths=0)
    axes.plot(steps, smoothed(cosine), color="black")
    axes.axhline(0, color="0.5", linewidth=0.6)
    low = min(finite(cosine), default=0.0)
    axes.set(ylim=(min(-0.1, 1.1 * low), 1.05), ylabel="cosine", xlabel="local steps, all workers")
    axes.set_title("Momentum and pseudo-gradient")
    bar = figure.colorbar(colours, ax=axes, label="staleness")
    bar.locator.set_params(integer=True)  # type: ignore[union-attr]
    bar.update_ticks()


def _draw_norms(figure: Figure, axes: Axes, drawn: dict[str, Any], size: Size) -> None:
    arrivals = drawn["arrivals"]
    for colour, (name, said) in zip(COLOURS, NORMS.items()):
        values = arrivals[name]
        if values is not None:
            there = np.isfinite(values) & (values > 0)
            style = {"color": colour, "linewidth": 0.8 * size.line, "label": said}
            axes.plot(arrivals["local_steps"][there], values[there], **style)
    axes.set(yscale="log", ylabel="norm", xlabel="local steps, all workers")
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": 0.1}
    axes.legend(**above, ncols=size.columns + 1, columnspacing=1.0, handlelength=1.2, handletextpad=0.4)


def _draw_loss(figure: Figure, axes: Axes, drawn: dict[str, Any], size: Size) -> None:
    arrivals = drawn["arrivals"]
    axes.scatter(arrivals["local_steps"], arrivals["loss"], color="0.6", s=7 * size.line, linewidths=0)
    axes.plot(arrivals["local_steps"], smoothed(arrivals["loss"]), color="black")
    axes.set(ylabel="training loss (nats)", xlabel="local steps, all workers")
    axes.set_title("Mean loss of each visit")


def _draw_workers(figure: Figure, axes: Axes, drawn: dict[str, Any], size: Size) -> None:
    cosines = np.asarray(drawn["worker_cosines"], float)
    shown = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    if len(cosines) <= 8:
        for (v, w), cosine in np.ndenumerate(cosines):
            colour = "white" if abs(cosine) > 0.6 else "black"
            said = f"{cosine:.2f}" if np.isfinite(cosine) else "–"
            axes.text(w, v, said, ha="center", va="center", color=colour, fontsize=size.font - 1)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    places = range(0, len(cosines), -(-len(cosines) // 16))
    axes.set_xticks(places)
    axes.set_yticks(places)
    axes.tick_params(length=0)
    axes.set(xlabel="worker", ylabel="worker")
    axes.set_title(f"Latest pseudo-gradients, mean of {drawn['matrices']}")
    figure.colorbar(shown, ax=axes, label="cosine")


def smoothed(values: np.ndarray, share: float = 0.08) -> np.ndarray:
    """[E] the mean of the finite values around each, over a share of them all."""
    width = max(1, round(share * len(values)))
    known, ones = np.isfinite(values), np.ones(width)
    total = np.convolve(np.where(known, values, 0.0), ones, "same")
    count = np.convolve(known.astype(float), ones, "same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
