"""How the tests of the import law read the sources: which module imports which, and when."""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import toybench

ROOT = Path(__file__).parent.parent
PACKAGES = ("toybench", "lm")


class Imports(NamedTuple):
    """Modules of ours in full, packages of others; the standard library is not counted."""

    loading: frozenset[str]  # when the module is imported
    later: frozenset[str]  # only within functions, or for type checkers

    @property
    def all(self) -> frozenset[str]:
        return self.loading | self.later


def name_of(path: Path) -> str:
    """``lm/commands/__init__.py`` -> ``lm.commands``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported_names(node: ast.stmt, package: list[str]) -> list[str]:
    """The modules of an import statement; `package` is the module's own, for relative imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    # `from toybench import engine` imports a module, `from toybench import __version__` the package.
    return [full if (full := f"{module}.{alias.name}") in MODULES else module for alias in node.names]


def imports_of(path: Path) -> Imports:
    """What a file imports."""
    package = list(path.relative_to(ROOT).parent.parts)
    found: tuple[set[str], set[str]] = set(), set()

    def walk(node: ast.AST, later: bool) -> None:
        for name in imported_names(node, package) if isinstance(node, ast.stmt) else ():
            if (first := name.split(".")[0]) not in sys.stdlib_module_names:
                found[later].add(name if first in PACKAGES else first)
        for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, later or function or (for_types and child in node.body))

    walk(ast.parse(path.read_text(encoding="utf-8")), False)
    return Imports(frozenset(found[0]), frozenset(found[1] - found[0]))


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}
# The package loads its names when they are first used.
_lazy = {f"toybench.{origin}" for origin in toybench._ORIGIN.values()}
IMPORTS["toybench"] = Imports(IMPORTS["toybench"].loading, IMPORTS["toybench"].later | _lazy)


def room(name: str, *rooms: str) -> bool:
    """Whether a module is one of these, or lies within one of them."""
    return any(name == r or name.startswith(f"{r}.") for r in rooms)


def loaded_with(name: str) -> set[str]:
    """All that is loaded when a module is imported."""
    return _closure(name, lambda module: IMPORTS[module].loading)


def reached_from(name: str) -> set[str]:
    """All that a module may ever load."""
    return _closure(name, lambda module: IMPORTS[module].all)


def _closure(name: str, imported: Callable[[str], Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    todo = {name}
    while todo:
        module = todo.pop()
        new = {target for other in imported(module) for target in (other, *_rooms_of(other))} - seen
        seen |= new
        todo |= new & IMPORTS.keys()
    return seen - {name}


def _rooms_of(name: str) -> list[str]:
    """The packages that a module lies in, which are loaded with it; the outermost holds nothing."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(2, len(parts))]


def declared() -> tuple[set[str], set[str]]:
    """The distributions that the project needs, and those of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: Iterable[str]) -> set[str]:
        return {"".join(c if c.isalnum() or c in "-_" else " " for c in r).split()[0] for r in requirements}

    extras = {name for requirements in project["optional-dependencies"].values() for name in names(requirements)}
    return names(project["dependencies"]), extras
