"""Every import is declared in the requirements, and every declaration is imported."""

import ast
import re
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-nodeps.txt")
FOLDERS = ("latentsync", "scripts", "preprocess", "eval", "benchmarks", "embedded", "tests")

# Declared though no file of ours imports it.
NOT_IMPORTED = {
    "ruff": "a command: the style check of .ci/run",
    "tensorboard": "torch.utils.tensorboard imports it",
}
OPTIONAL = {  # imported, not declared
    "bitsandbytes": "eight-bit optimizer; of use on CUDA alone, and asked for by name where it is wanted",
    "ray": "many machines for the data pipeline; asked for by name, requirements-ray.txt says which",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Names of the distributions that the requirements pin."""
    lines = [line.split("#")[0].strip() for name in REQUIREMENTS for line in (ROOT / name).read_text().splitlines()]
    return {normal(re.split(r"[=<>;\[ ]", line)[0]) for line in lines if line}


def project_files() -> list[Path]:
    return [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]


def own_names() -> set[str]:
    """Top names of our own modules: packages, single files, and what the tests share."""
    return {*FOLDERS, *(path.stem for path in ROOT.glob("*.py")), *(path.stem for path in (ROOT / "tests").rglob("*.py"))}


def foreign_imports() -> dict[str, str]:
    """Top names of what is neither ours nor the standard library's, each with one file that imports it."""
    found: dict[str, str] = {}
    for path in project_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in own_names() and name not in sys.stdlib_module_names}


@cache
def installed() -> dict[str, set[str]]:
    """Top names that can be imported, each with the installed distributions that bring it."""
    found: dict[str, set[str]] = {}
    for distribution in distributions():
        tops = (distribution.read_text("top_level.txt") or "").split()
        tops = tops or [file.parts[0].removesuffix(".py") for file in distribution.files or () if file.suffix == ".py"]
        for top in tops:
            found.setdefault(top, set()).add(normal(distribution.metadata["Name"]))
    return found


def distributions_of(module: str) -> set[str]:
    return installed().get(module, set())


def test_every_import_is_declared() -> None:
    missing = [
        f"{name} ({file})" for name, file in foreign_imports().items() if name not in OPTIONAL and not distributions_of(name) & declared()
    ]
    assert missing == []


def test_every_declaration_is_imported() -> None:
    used = set().union(*(distributions_of(name) for name in foreign_imports()))
    assert declared() - used - NOT_IMPORTED.keys() == set()
    assert NOT_IMPORTED.keys() <= declared(), "an excuse for something that is not declared"
    assert not NOT_IMPORTED.keys() & used, "an excuse for something that is imported"


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_versions_are_pinned(name: str) -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    assert [
        line for line in lines if line and not re.match(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*(; python_version (>=|<) \"3\.\d+\")?$", line)
    ] == []
