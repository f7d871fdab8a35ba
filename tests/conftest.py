"""How the tests use jax: two CPU devices, strict rank promotion, compiled programs kept as for any other program."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import jax
import pytest

from toybench.runtime import configure

configure()
jax.config.update("jax_num_cpu_devices", 2)  # two on every machine, so that lanes are always spread
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("toybench", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("toybench")


@pytest.fixture
def float64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield
