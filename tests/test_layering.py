"""Who may import whom: arrows go from pipelines to the game, from variants to the contract."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gan_core.variants  # noqa: F401
from gan_core.variant import list_variants

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "gan_core").rglob("*.py"))
HEAVY = ("torchvision", "sklearn", "scipy", "torchmetrics", "torch_fidelity", "PIL", "yaml")


def imported(path: Path) -> set[str]:
    """Everything that a file imports anywhere in it, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            names |= {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if name in ("import_module", "__import__"):
                names |= {str(value) for value in arguments}
    return names


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def within(path: Path, *packages: str) -> set[str]:
    """What ``path`` imports from any of ``packages``."""
    return {n for n in imported(path) for p in packages if n == p or n.startswith(p + ".")}


def test_there_is_something_to_look_at() -> None:
    assert len(CORE) > 30
    assert "torch" in roots(ROOT / "gan_core" / "engine" / "game.py")


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_game_knows_nothing_of_ray_mlflow_or_the_pipelines(path: Path) -> None:
    forbidden = {"ray", "mlflow", "pipelines", "tune_spaces", "benchmarks"}
    assert roots(path) & forbidden == set()


@pytest.mark.parametrize("folder", ["engine", "layers", "metrics", "diagnostics", "data"])
def test_only_runs_and_releases_know_the_variants(folder: str) -> None:
    for path in sorted((ROOT / "gan_core" / folder).glob("*.py")):
        assert within(path, "gan_core.variants") == set(), path


def test_the_engine_does_not_know_runs_and_what_is_around_them() -> None:
    around = (
        "run",
        "observers",
        "judging",
        "splits",
        "release",
        "journal",
        "config",
        "metrics",
        "diagnostics",
    )
    for path in sorted((ROOT / "gan_core" / "engine").glob("*.py")):
        assert within(path, *(f"gan_core.{name}" for name in around)) == set(), path


def test_the_contract_does_not_know_the_engine() -> None:
    assert within(ROOT / "gan_core" / "variant.py", "gan_core.engine") == set()
    for path in sorted((ROOT / "gan_core" / "variants").glob("*.py")):
        assert within(path, "gan_core.engine", "gan_core.run") == set(), path


def test_the_engine_names_no_variant() -> None:
    names = re.compile(rf"\b({'|'.join(list_variants())})\b", re.IGNORECASE)
    for path in sorted((ROOT / "gan_core" / "engine").glob("*.py")):
        assert names.findall(path.read_text()) == [], path


def test_nothing_is_borrowed_from_the_verb_that_sends() -> None:
    """What it shares with those that play is below both: else each would import the other."""
    for path in sorted((ROOT / "pipelines").rglob("*.py")):
        assert within(path, "pipelines.sync") == set(), path


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh process has loaded after ``statement``."""
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        timeout=120,
    )
    return set(done.stdout.split())


def test_importing_the_game_is_light() -> None:
    assert loaded_by("import gan_core") & {"torch", "numpy", "ray", "mlflow", *HEAVY} == set()


def test_importing_the_engine_and_the_variants_loads_nothing_heavy_but_torch() -> None:
    loaded = loaded_by("import gan_core.variants, gan_core.engine.game, gan_core.data")
    assert "torch" in loaded
    assert loaded & {"ray", "mlflow", "torchvision", "sklearn", "scipy", "torchmetrics"} == set()


@pytest.mark.parametrize("package", ["gan_core", "pipelines", "tune_spaces"])
def test_type_checkers_of_those_who_import_a_package_see_its_types(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
