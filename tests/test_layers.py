"""Which package may import which, read from the source, so that a robot needs only what flies it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

OURS = {"controllers", "sim", "sysid", "deploy", "firmware_export"}
ALLOWED = {
    "controllers": set(),
    "sim": {"controllers"},
    "deploy": {"controllers", "sim"},
    "firmware_export": {"controllers"},
}
ON_ROBOT = {"numpy", "numba", "llvmlite", "onnxruntime", "mcap"}  # llvmlite is numba's compiler; mcap is Python only


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(node: ast.AST, at_module_scope: bool) -> Iterator[str]:
    """The top-level packages that are imported; inside functions too, unless only the module's scope counts."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module.split(".")[0]
        elif not (at_module_scope and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from imports(child, at_module_scope)


def imported(path: Path, at_module_scope: bool = False) -> set[str]:
    return set(imports(ast.parse(path.read_text(encoding="utf-8")), at_module_scope))


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    assert modules(package)
    for path in modules(package):
        above = (imported(path) & OURS) - ALLOWED[package] - {package}
        assert not above, f"{path.relative_to(ROOT)} imports {above}; allowed: {ALLOWED[package] or 'none of ours'}"


def test_controllers_load_only_what_belongs_on_a_robot() -> None:
    for path in modules("controllers"):
        heavy = imported(path, at_module_scope=True) - set(sys.stdlib_module_names) - ON_ROBOT
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}; allowed: {ON_ROBOT}"


def test_deploy_loads_simulators_and_dds_only_where_they_are_used() -> None:
    for path in modules("deploy"):
        virtual = {"sim", "mujoco"} if path.stem.startswith("virtual_") else set()  # nothing else imports these eagerly
        eager = imported(path, at_module_scope=True) & {"sim", "mujoco", "cyclonedds"} - virtual
        assert not eager, f"{path.relative_to(ROOT)} imports {eager} at module scope"


def test_every_package_that_exists_is_built_and_checked_here() -> None:
    existing = {path.parent.name for path in ROOT.glob("*/__init__.py")} & OURS
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == existing == set(ALLOWED)


def test_no_module_takes_the_name_of_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    taken = {re.split(r"[^\w.-]", requirement)[0].replace("-", "_") for requirement in requirements}
    for package in ALLOWED:
        for path in modules(package):
            for name in (path.stem, *path.relative_to(ROOT).parent.parts[1:]):
                assert name not in taken, f"{path.relative_to(ROOT)} has the name of the dependency {name}"
