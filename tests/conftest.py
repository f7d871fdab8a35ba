"""What all tests share.

They use jax on two CPU devices with strict rank promotion, its compiled programs kept as for any other program.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # on every machine, so that lanes are always spread, and processes share runs

import hypothesis
import jax
import pytest

from toybench.runtime import configure

pytest.register_assert_rewrite(
    "tests.pages", "tests.sweep_page", "tests.compare_page", "tests.corpora", "tests.imports"
)
jax.config.update("jax_numpy_rank_promotion", "raise")
configure()

hypothesis.settings.register_profile("toybench", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("toybench")


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of the app's runs, which is not there yet."""
    path = tmp_path / "my runs.sqlite"
    monkeypatch.setenv("TOYBENCH_STORE", str(path))
    return path


@pytest.fixture
def float64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield
