"""The toy's data as it can be seen: its points in their principal directions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from toybench.config import Gaussians
from toybench.engine import seed_keys
from toybench.gaussians import GaussianMixture


class Projection(NamedTuple):
    """Points of the mixture in the principal directions of the evaluation points; n points, up to three directions."""

    points: np.ndarray  # [n, d]
    labels: np.ndarray  # [n]
    explained: np.ndarray  # [d] share of the variance along each direction


def project(settings: Gaussians, seed: int, shards: int = 1, most: int = 1500) -> Projection:
    """Evaluation points of a seed's data, the first `most`, by singular values of the centred points.

    Args:
        settings: of the task.
        seed: as in `train`, whose data it shows.
        shards: of the data; the points do not depend on it but for what rounding leaves out.
        most: points returned; the directions are those of all.
    """
    data = GaussianMixture(settings).data(seed_keys(jax.random.key(seed))[0], shards)
    points, labels = (np.asarray(data[name], dtype) for name, dtype in (("test_x", float), ("test_y", int)))
    centred = points - points.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    variance, count = (sizes**2).sum(), min(3, len(directions))
    explained = sizes[:count] ** 2 / variance if variance > 0 else np.zeros(count)
    return Projection(centred[:most] @ directions[:count].T, labels[:most], explained)
