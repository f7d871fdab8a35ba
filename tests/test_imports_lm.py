"""The import law of the language models: what they may know of toybench, and where each heavy package is."""

import ast
import graphlib
import subprocess
import sys

import pytest

from tests.imports import IMPORTS, MODULES, declared, loaded_with, reached_from, room

OWN = [name for name in MODULES if room(name, "lm")]
EVERY = {name: IMPORTS[name].all for name in OWN}
HEAVY = {"jax", "optax", "flax", "orbax", "scipy", "matplotlib", "rich", "datasets", "sentencepiece", "pyarrow"}
DISTRIBUTIONS = {"orbax": "orbax-checkpoint"}  # whose modules have another name


def opening(name: str) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8"))) or ""


@pytest.mark.parametrize(
    "package, place",
    [
        ("flax", "lm.model"),
        ("orbax", "lm.checkpoint"),
        ("datasets", "lm.sources"),
        ("sentencepiece", "lm.tokens"),
        ("pyarrow", "lm.files"),
    ],
)
def test_a_package_is_imported_in_one_place_only(package, place):
    assert [name for name in OWN if package in EVERY[name]] == [place]


@pytest.mark.parametrize("name", OWN)
def test_language_models_know_the_spine_and_not_the_toy(name):
    assert not [target for target in reached_from(name) if room(target, "toybench.sweep", "toybench.views")]
    assert "toybench.gaussians" not in EVERY[name]  # the spine itself loads it
    assert not EVERY[name] & {"app", "experiments", "tests", "streamlit", "altair", "matplotlib"}


def test_only_commands_compare_and_draw():
    outside = [name for name in OWN if not room(name, "lm.commands", "lm.cli")]
    for name in outside:
        assert not [target for target in EVERY[name] if room(target, "toybench.statistics", "toybench.plots")], name


@pytest.mark.parametrize("name", [name for name in MODULES if "no jax" in opening(name).lower()])
def test_what_says_that_it_loads_no_jax_loads_none(name):
    assert not loaded_with(name) & {"jax", "optax", "flax", "orbax"}
    assert "No jax here" not in opening(name) or not IMPORTS[name].all & {"jax", "optax", "flax", "orbax"}


@pytest.mark.parametrize("name", [name for name in MODULES if "NumPy only" in opening(name)])
def test_what_says_numpy_only_loads_nothing_else(name):
    assert {target for target in loaded_with(name) if not room(target, "toybench", "lm")} == {"numpy"}


def test_the_laws_of_what_a_module_says_are_about_some():
    assert {"lm.config", "lm.promote"} <= {name for name in OWN if "No jax here" in opening(name)}
    assert {"lm.waves", "toybench.timeline"} <= {name for name in MODULES if "NumPy only" in opening(name)}


def test_the_command_line_loads_fast():
    assert not loaded_with("lm.cli") & HEAVY
    code = f"import sys, lm.cli; print(sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in OWN if room(name, "lm.commands")])
def test_a_command_is_imported_by_the_command_line_only(name):
    assert all(room(other, "lm.cli", "lm.commands") for other in OWN if name in EVERY[other])


def test_there_are_no_cycles():
    list(graphlib.TopologicalSorter({name: EVERY[name] & {*OWN} for name in OWN}).static_order())


def test_modules_are_named_only_in_import_statements():
    for name in OWN:
        text = MODULES[name].read_text(encoding="utf-8")
        assert "import_module" not in text and "__import__" not in text, name


def test_what_is_imported_is_declared():
    needed, extras = declared()
    others = {target for targets in EVERY.values() for target in targets if not room(target, "toybench", "lm")}
    assert {DISTRIBUTIONS.get(target, target.replace("_", "-")) for target in others} <= needed | extras


def test_all_that_decides_a_runs_numbers_is_told_apart():
    """What a stored run was made by is a digest of these; a new module that trains must be one, or be named here."""
    from lm.maker import NUMBERS

    settings, data = {"config", "placement"}, {"documents", "files", "lock", "prepare", "sources", "tokens"}
    used = set().union(*({f"lm.{name}", *loaded_with(f"lm.{name}")} for name in ("train", "task", "data")))
    used = {name.removeprefix("lm.") for name in used if room(name, "lm")} - {"lm"}
    assert used - settings - data <= set(NUMBERS)
