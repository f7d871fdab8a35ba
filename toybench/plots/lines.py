"""What figures and pages share of lines: colours, means and bands, limits of their axes. No matplotlib."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toybench.curves import Curves
from toybench.statistics import band

BANDS = 4  # of the best lines; more would hide each other

# Colour-blind safe (Okabe and Ito), without the yellow, which is too light for a line.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")


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


def limits_of(drawn: dict[str, Any]) -> tuple[float, float]:
    """Of a loss not above the untrained model's, over which a method may spike far."""
    lines, highest = drawn["lines"], math.inf
    means = finite(*(line["mean"] for line in lines))
    if drawn["metric"] == "loss":
        highest = max(finite(*(line["mean"][:1] for line in lines)), default=highest)
    bands = [line[side] for line in lines[:BANDS] for side in ("low", "high") if line[side] is not None]
    return limits(means, finite(*bands) if bands else means, highest)


def limits(means: np.ndarray, bands: np.ndarray, highest: float = math.inf) -> tuple[float, float]:
    """Limits of an axis that show all means below `highest`, and bands too where they are not far wider."""
    means, bands = np.minimum(finite(means), highest), np.minimum(finite(bands), highest)
    if not len(means):
        return 0.0, 1.0
    low, high = means.min(), means.max()
    room = (high - low) or abs(high) or 1.0
    low = max(low - 0.4 * room, min(bands, default=low))
    high = min(high + 0.4 * room, max(bands, default=high))
    return low - 0.06 * room, high + 0.06 * room


def finite(*arrays: Any) -> np.ndarray:
    """All numbers of some arrays that are finite, flat."""
    flat = np.concatenate([np.ravel(np.asarray(array, float)) for array in arrays])
    return flat[np.isfinite(flat)]
