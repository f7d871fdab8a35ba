"""The import law: who may import whom. A new edge is added to `LAW` knowingly, or not at all."""

import graphlib
import subprocess
import sys

import pytest

import toybench
from tests.imports import IMPORTS, MODULES, ROOT, Imports, declared, imports_of, loaded_with, reached_from, room


def row(loading: str = "", later: str = "") -> Imports:
    """What a module imports when it is loaded, and what only later."""
    return Imports(frozenset(loading.split()), frozenset(later.split()))


COMMANDS = sorted(path.stem for path in (ROOT / "toybench" / "commands").glob("[a-z]*.py"))

# "toybench" is the package itself, whose names are loaded when first used. Lowest layers first.
LAW = {
    "config": row(),
    "shards": row("numpy"),
    "scheduler": row("config shards numpy"),
    "presence": row("config numpy"),
    "timeline": row("config presence scheduler numpy"),
    "outer.base": row("", "jax optax"),
    "outer.adam": row("config", "optax"),
    "outer.sgd": row("config", "optax"),
    "outer.buffered": row("config outer.base outer.sgd", "jax optax"),
    "outer.delay_compensation": row("config outer.base outer.sgd", "jax optax"),
    "outer.delayed_nesterov": row("config outer.base outer.sgd", "jax optax"),
    "outer.staleness": row("config outer.base outer.sgd", "jax optax"),
    "outer.autocorrelation": row("outer.base outer.sgd", "jax optax"),
    "outer.fedasync": row("config outer.base outer.sgd", "jax optax"),
    "outer.fedbuff": row("config outer.base outer.buffered outer.sgd outer.staleness", "jax optax"),
    "outer.halos": row("config outer.base outer.delayed_nesterov", "jax optax"),
    "outer.momentum_look_ahead": row("outer.base outer.sgd", "jax optax"),
    "outer.heloco": row("config outer.base outer.momentum_look_ahead", "jax"),
    "outer.ormo": row("config outer.base outer.sgd", "jax optax"),
    "outer.restarts": row("config outer.base outer.sgd", "jax"),
    "outer.ringmaster": row("config outer.base outer.sgd", "jax"),
    "outer": row(
        "config outer.adam outer.autocorrelation outer.base outer.buffered outer.delay_compensation "
        "outer.delayed_nesterov outer.fedasync outer.fedbuff outer.halos outer.heloco "
        "outer.momentum_look_ahead outer.ormo outer.restarts outer.ringmaster outer.sgd outer.staleness"
    ),
    "loading": row("config outer"),
    "presets": row("config loading"),
    "curves": row("config numpy"),
    "axes": row("config loading numpy", "scipy"),
    "search": row("axes config loading numpy", "optuna"),
    "sweep": row("config curves records search store training filelock"),
    "database": row("config"),
    "queries": row("config curves database loading numpy"),
    "store": row("config curves database loading queries numpy"),
    "runtime": row("config", "jax platformdirs"),
    "statistics": row("numpy scipy"),
    "task": row("jax"),
    "inner": row("task jax optax"),
    "server": row("outer.base task jax optax"),
    "gaussians": row("config task jax optax"),
    "engine": row("inner outer.base server task timeline jax numpy"),
    "training": row("config curves engine gaussians inner outer runtime task timeline jax numpy optax"),
    "toybench": row("", "config scheduler timeline outer task inner server engine training loading presets runtime"),
    "records": row("toybench config loading runtime numpy", "jax training"),
    "tuning": row("config curves numpy"),
    "clusters": row("config numpy"),
    "study": row("config curves loading outer statistics numpy"),
    "compare": row("config records statistics numpy"),
    "leaderboard": row(
        "clusters config curves loading outer records statistics study tuning numpy", "plots.leaderboard"
    ),
    "scale": row("clusters config records timeline numpy", "plots.scale plots.style"),
    "probes": row("config engine inner outer outer.base records server task timeline training jax numpy optax"),
    "selection": row("axes config curves loading statistics store numpy"),
    "plots": row(),
    "plots.style": row("config plots.lines matplotlib", "records"),
    "plots.lines": row("curves statistics numpy"),
    "plots.compare": row("plots.style matplotlib"),
    "plots.curves": row("config curves plots.lines plots.style selection matplotlib"),
    "plots.rates": row("config curves plots.lines plots.style selection statistics matplotlib numpy"),
    "plots.heatmap": row("config curves plots.style selection matplotlib numpy"),
    "plots.scale": row("plots.style matplotlib"),
    "plots.timeline": row("config plots.style timeline matplotlib numpy"),
    "plots.probes": row("config plots.lines plots.style matplotlib numpy"),
    "plots.demo": row("plots.timeline study training matplotlib numpy"),
    "plots.leaderboard": row("matplotlib numpy"),
    "demo": row("config presets records statistics study training numpy", "plots.demo"),
    "report": row("loading outer numpy rich", "compare config demo scale study timeline training"),
    "narrate": row("config curves outer statistics study timeline numpy"),
    "projection": row("config engine gaussians jax numpy"),
    "views": row(),
    "views.jobs": row("config"),
    "views.tex": row(),
    "views.warned": row("config"),
    "views.scene": row("arguments config loading presets study"),
    "views.stories": row("clusters study views.scene"),
    "views.work": row("config curves timeline views.jobs", "loading probes projection runtime training"),
    "views.shipped": row("curves loading records views.jobs views.work numpy"),
    "views.state": row("config views.jobs views.scene views.stories streamlit"),
    "views.charts": row("plots.lines altair numpy pandas"),
    "views.controls": row(
        "clusters config loading narrate outer selection study views.scene views.state views.tex views.warned streamlit"
    ),
    "views.explore_shown": row(
        "config curves narrate plots.lines statistics timeline views.charts views.jobs views.scene views.state "
        "views.work streamlit",
        "plots.probes plots.timeline",
    ),
    "views.explore": row(
        "config loading narrate views.controls views.explore_shown views.jobs views.scene views.shipped views.state "
        "views.stories views.work streamlit",
        "tomli_w",
    ),
    "views.promote": row("config loading narrate selection views.scene views.state views.trained streamlit", "store"),
    "views.trained": row(
        "config curves interrupt loading narrate plots.lines records selection views.charts views.runner views.state "
        "views.stored views.work numpy streamlit"
    ),
    "views.plans": row(
        "arguments axes config loading presets selection store views.jobs views.scene views.work",
        "runtime sweep tomli_w",
    ),
    "views.runner": row("toybench config"),
    "views.outcomes": row("axes config curves plots.heatmap plots.rates selection store views.jobs"),
    "views.charts_sweep": row("plots.lines selection views.outcomes altair numpy"),
    "views.sweeps": row("config store views.jobs views.runner views.scene views.state streamlit"),
    "views.sweep_form": row(
        "axes config narrate views.plans views.scene views.state views.sweeps streamlit",
    ),
    "views.sweep_shown": row(
        "config interrupt selection views.charts_sweep views.jobs views.outcomes views.plans views.runner views.scene "
        "views.state views.sweeps pandas streamlit"
    ),
    "views.sweep": row("views.state views.sweep_form views.sweep_shown views.sweeps streamlit"),
    "views.real": row("config records views.charts views.state numpy pandas streamlit"),
    "views.pages": row("views.explore views.state streamlit", "views.compare views.promote views.real views.sweep"),
    "views.stored": row("arguments axes config curves loading selection store streamlit"),
    "views.recorded": row("config records views.state streamlit"),
    "views.charts_compare": row("plots.curves plots.lines altair pandas"),
    "views.compare_run": row("config loading selection views.scene views.state views.stored streamlit", "tomli_w"),
    "views.compare_records": row(
        "config curves plots.curves plots.style presets selection views.charts_compare views.compare_run views.scene "
        "views.state views.stored pandas streamlit",
        "report",
    ),
    "views.compare_bridge": row("compare config views.charts_compare views.recorded views.state pandas streamlit"),
    "views.compare_board": row(
        "clusters config leaderboard loading study views.charts_compare views.recorded views.scene views.state pandas "
        "streamlit"
    ),
    "views.compare_paper": row("config views.recorded views.state streamlit"),
    "views.compare": row(
        "views.compare_board views.compare_bridge views.compare_paper views.compare_records views.state streamlit"
    ),
    "arguments": row("config loading presets"),
    "transports": row(""),
    "transports.frames": row("jax numpy"),
    "transports.codec": row("task jax"),
    "transports.coordinator": row("config scheduler timeline numpy"),
    "transports.ledger": row("config transports.frames", "filelock"),
    "transports.keeping": row("config server transports.frames jax numpy"),
    "transports.messages": row("transports.coordinator numpy"),
    "transports.programs": row("engine outer.base scheduler server task transports.codec jax numpy"),
    "transports.work": row("config engine inner loading outer scheduler task training jax numpy"),
    "transports.live": row(
        "config server task transports.coordinator transports.keeping transports.ledger transports.messages "
        "transports.programs transports.work jax numpy"
    ),
    "transports.house": row("config transports.keeping transports.live"),
    "transports.worker": row("scheduler task transports.codec transports.messages transports.work jax numpy"),
    "transports.threads": row("transports.house transports.live transports.messages transports.work transports.worker"),
    "transports.again": row(
        "engine scheduler server task timeline transports.codec transports.programs transports.work "
        "transports.worker jax numpy"
    ),
    "transports.results": row("config timeline transports.coordinator transports.keeping transports.ledger numpy"),
    "transports.drive": row(
        "config records transports.about transports.codec transports.ledger transports.live transports.messages "
        "transports.results transports.work",
        "transports.ray transports.threads",
    ),
    "transports.replaying": row(
        "config records transports.about transports.again transports.drive transports.results transports.work jax numpy"
    ),
    "transports.show": row("", "rich"),
    "transports.about": row("toybench", "transports.work"),
    "transports.ray.means": row("config"),
    "transports.ray.posts": row(),
    "transports.ray.site": row("config runtime transports.ray.means", "ray"),
    "transports.ray.seat": row(
        "config transports.about", "runtime transports.house transports.live transports.messages transports.work"
    ),
    "transports.ray.force": row(
        "config runtime transports.about transports.ray.crew transports.ray.means transports.ray.seat "
        "transports.ray.site",
        "curves records sweep training ray",
    ),
    "transports.ray.line": row(
        "runtime transports.about transports.ray.means transports.ray.seat transports.ray.site",
        "transports.messages transports.worker ray",
    ),
    "transports.ray.crew": row(
        "config transports.ray.line transports.ray.means transports.ray.posts transports.ray.seat transports.ray.site",
        "ray",
    ),
    "transports.ray": row(
        "config transports.about transports.ray.crew transports.ray.line transports.ray.means transports.ray.posts "
        "transports.ray.seat transports.ray.site",
        "transports.messages transports.work ray",
    ),
    "engines": row(
        "config console interrupt",
        "records report transports.drive transports.messages transports.show transports.work",
    ),
    "interrupt": row(),
    "console": row("interrupt", "records rich"),
    "shell": row("toybench arguments config interrupt"),
    "cli": row("arguments shell " + " ".join(f"commands.{name}" for name in COMMANDS)),
    "__main__": row("interrupt", "cli shell"),
}
COMMANDS_LOAD = {
    "arguments",
    "config",
    "console",
    "engines",
    "interrupt",
    "loading",
    "presets",
}  # and what they do, they import when they run


# The sources, without the prefix toybench


def shortened(name: str) -> str:
    """``toybench.outer.sgd`` -> ``outer.sgd``."""
    return name.removeprefix("toybench.")


def short(found: Imports) -> Imports:
    return Imports(*(frozenset(map(shortened, part)) for part in found))


SOURCES = {shortened(name): path for name, path in MODULES.items() if room(name, "toybench")}
FOUND = {shortened(name): short(found) for name, found in IMPORTS.items() if room(name, "toybench")}
EVERY = {name: found.all for name, found in FOUND.items()}


# The table


@pytest.mark.parametrize("name", sorted(LAW.keys() | {name for name in SOURCES if not room(name, "commands")}))
def test_a_module_imports_what_the_table_says(name):
    assert FOUND.get(name) == LAW.get(name)


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name, "commands")])
def test_a_command_loads_fast_and_is_imported_by_the_command_line_only(name):
    assert {target for target in FOUND[name].loading if not room(target, "commands")} <= COMMANDS_LOAD
    assert all(other == "cli" or room(other, "commands") for other in SOURCES if name in EVERY[other])


# What the table itself must obey


def test_toybench_imports_no_caller():
    for name, imported in EVERY.items():
        assert not [other for other in imported if room(other, "lm", "app", "experiments", "tests", "flax")], name


def test_the_app_hands_the_bridge_in():
    assert imports_of(ROOT / "app.py") == Imports(
        frozenset({"lm.launch", "lm.promote", "toybench.views.pages"}), frozenset()
    )


@pytest.mark.parametrize(
    "package, place",
    [
        ("streamlit", "views"),
        ("altair", "views"),
        ("matplotlib", "plots"),
        ("ray", "transports.ray"),
        ("pyarrow", "commands.records"),
    ],
)
def test_a_package_is_imported_in_one_place_only(package, place):
    assert [name for name in EVERY if package in EVERY[name] and not room(name, place)] == []


def test_settings_stand_alone():
    assert EVERY["config"] == set()


def test_the_clock_knows_settings_and_numpy_only():
    assert EVERY["shards"] | EVERY["presence"] <= {"config", "numpy"}
    assert EVERY["scheduler"] <= {"config", "shards", "numpy"}
    assert EVERY["timeline"] <= {"config", "presence", "scheduler", "numpy"}


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name, "outer")])
def test_outer_methods_know_settings_and_each_other_only(name):
    assert all(room(target, "config", "outer") for target in FOUND[name].loading)
    assert FOUND[name].later <= {"jax", "optax"}


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name, "outer", "timeline", "task", "inner")])
def test_outer_timeline_task_and_inner_are_strangers(name):
    strangers = {"outer", "timeline", "task", "inner"} - {name.split(".")[0]} - ({"task"} if name == "inner" else set())
    assert not [target for target in map(shortened, reached_from(f"toybench.{name}")) if room(target, *strangers)]


@pytest.mark.parametrize(
    "name", ["config", "loading", "presets", "cli", "runtime", "scheduler", "timeline", "toybench"]
)
def test_what_must_load_fast_loads_no_jax(name):
    loaded = loaded_with(f"toybench.{name}" if name != "toybench" else name)
    assert not loaded & {"jax", "optax", "scipy", "matplotlib", "rich"}


def test_nothing_imports_a_command_line():
    files = [*MODULES.values(), *(ROOT / "experiments").rglob("*.py")]
    for path in files:
        assert path.stem == "__main__" or not imports_of(path).all & {"toybench.cli", "lm.cli", "app"}, path


def test_there_are_no_cycles():
    list(graphlib.TopologicalSorter({name: EVERY[name] & SOURCES.keys() for name in SOURCES}).static_order())


def test_modules_are_named_only_in_import_statements():
    """Except for the package, which loads its names when they are first used, and recipes, which name their maker."""
    for name, path in SOURCES.items():
        text = path.read_text(encoding="utf-8")
        assert ("import_module" in text) == (name in ("toybench", "transports.work")) and "__import__" not in text, name


def test_dependencies_are_what_is_imported():
    needed, extras = declared()
    imported = {target.replace("_", "-") for targets in EVERY.values() for target in targets - FOUND.keys()}
    assert needed <= imported <= needed | extras


# Held to by Python itself


@pytest.mark.parametrize("statement", ["import toybench", "import toybench.cli; toybench.cli.build_parser()"])
def test_heavy_packages_wait_until_they_are_needed(statement):
    heavy = "{'jax', 'jaxlib', 'optax', 'scipy', 'matplotlib', 'rich'}"
    code = f"import sys; {statement}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_package_is_there():
    for name in toybench.__all__:
        assert getattr(toybench, name).__name__ if name != "METHODS" else toybench.METHODS
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = toybench.nothing
