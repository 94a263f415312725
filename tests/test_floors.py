"""The house rules that a machine can hold: who may import whom, and what a file must not do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("latentsync", "scripts", "preprocess", "eval", "benchmarks", "embedded", "gradio_app")

# Room -> floor, the longest matching name wins. A file imports from its own room and from lower floors.
FLOORS = {
    "latentsync.constants": 0,
    "latentsync.errors": 0,
    "latentsync.cli": 1,
    "latentsync.config": 1,
    "latentsync.weights": 1,
    "latentsync.media": 1,
    "latentsync.models": 2,
    "latentsync.whisper": 2,
    "latentsync.faces": 2,
    "latentsync.mel": 2,
    "latentsync.third_party": 2,
    "latentsync.diffusion": 3,
    "latentsync.losses": 3,
    "latentsync.data": 3,
    "latentsync.pipelines": 4,
    "latentsync.training": 4,
    "latentsync.app": 5,
    "eval": 5,
    "scripts": 6,
    "preprocess": 6,
    "benchmarks": 6,
    "gradio_app": 7,
    "embedded": 8,  # nothing imports it
}
_OF_CONFIG = (
    *("config_checks", "config_reading", "published_config", "training_config"),
    *("audio_encoder_config", "autoencoder_config", "mouth_reader_config"),
)
SAME_ROOM = {  # files that share a room without sharing a folder
    **{f"latentsync.{name}": "latentsync.config" for name in _OF_CONFIG},
    "latentsync.weights": "latentsync.weights",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, ast.Module]:
    """Every module of the project outside its tests, parsed."""
    paths = [path for name in OWN for path in (ROOT / name).rglob("*.py")] + list(ROOT.glob("*.py"))
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths if "__pycache__" not in path.parts}


SOURCES = sources()


def own_imports(name: str, tree: ast.Module, modules: set[str] | dict[str, ast.Module]) -> set[str]:
    """Own modules that a module imports, wherever in the file the import stands."""
    found: set[str] = set()
    package = name if any(other.startswith(f"{name}.") for other in modules) else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
    return {target for target in found if target.split(".")[0] in OWN} - {name}


def room(module: str) -> str:
    module = SAME_ROOM.get(module, module)
    rooms = [name for name in FLOORS if module == name or module.startswith(f"{name}.")]
    return max(rooms, key=len, default="")


def trespasses(name: str, tree: ast.Module, modules: set[str] | dict[str, ast.Module]) -> list[str]:
    """Imports that go up, sideways, or out of the house plan."""
    here = room(name)
    return [
        f"{name} imports {target}"
        for target in sorted(own_imports(name, tree, modules))
        if target != "latentsync" and room(target) != here and not (room(target) and FLOORS[room(target)] < FLOORS[here])
    ]


def test_every_module_has_a_room() -> None:
    assert [name for name in SOURCES if name != "latentsync" and not room(name)] == []


def test_imports_go_down() -> None:
    assert [line for name, tree in SOURCES.items() if name != "latentsync" for line in trespasses(name, tree, SOURCES)] == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("latentsync.errors", "import latentsync.config"),
        ("latentsync.media.video_reader", "from latentsync import weights"),
        ("latentsync.models.unet", "from latentsync.faces.mask import fixed_mask"),
        ("latentsync.models.unet", "from ..faces import mask"),
        ("latentsync.pipelines.build", "def f():\n    import scripts.inference"),
        ("scripts.inference", "from preprocess import stage"),
    ],
)
def test_a_trespass_would_be_seen(name: str, line: str) -> None:
    modules = {name, "latentsync.config", "latentsync.weights", "latentsync.faces.mask", "scripts.inference", "preprocess.step"}
    assert len(trespasses(name, ast.parse(line), modules)) == 1


def test_no_import_cycles() -> None:
    graph = {name: own_imports(name, tree, SOURCES) & SOURCES.keys() for name, tree in SOURCES.items()}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}, "these modules import each other in a circle"


def test_ground_floor_needs_only_the_standard_library() -> None:
    for name in ("latentsync.constants", "latentsync.errors"):
        assert top_imports(SOURCES[name]) <= sys.stdlib_module_names


def test_media_knows_no_torch() -> None:
    assert [name for name, tree in SOURCES.items() if room(name) == "latentsync.media" and "torch" in top_imports(tree)] == []


def top_imports(tree: ast.Module) -> set[str]:
    """First names of everything a module imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def called(node: ast.Call) -> str:
    """The dotted name of what is called, as written; "" for anything else."""
    target, parts = node.func, []
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    return ".".join([target.id, *reversed(parts)]) if isinstance(target, ast.Name) else ""


def keywords(node: ast.Call) -> dict[str, object]:
    return {word.arg: getattr(word.value, "value", None) for word in node.keywords if word.arg}


def faults(name: str, tree: ast.Module) -> list[str]:
    """Lines of a module that break a house rule."""
    found = []
    if tree.body and not ast.get_docstring(tree):
        found.append(f"{name}: no docstring")
    for node in ast.walk(tree):
        place = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{place}: bare except")
        if isinstance(node, ast.Global):
            found.append(f"{place}: mutated global")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > 60:
            found.append(f"{place}: {node.name} is longer than 60 lines")
        if not isinstance(node, ast.Call):
            continue
        if called(node) == "print" and name.startswith("latentsync"):
            found.append(f"{place}: print in the library")
        if keywords(node).get("shell") or called(node) in {"os.system", "os.popen"}:
            found.append(f"{place}: a shell")
        if called(node) == "torch.load" and keywords(node).get("weights_only") is not True:
            found.append(f"{place}: torch.load without weights_only=True")
    return found


def test_house_rules() -> None:
    assert [fault for name, tree in SOURCES.items() for fault in faults(name, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "print(1)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "try:\n    pass\nexcept:\n    pass",
        "def f():\n    global x",
    ],
)
def test_a_broken_rule_would_be_seen(line: str) -> None:
    assert len(faults("latentsync.x", ast.parse(f'"""Doc."""\n{line}'))) == 1


def test_files_stay_readable() -> None:
    paths = [path for name in OWN for path in (ROOT / name).rglob("*.py") if "third_party" not in path.parts]
    assert [path.name for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > 800] == []


def test_importing_does_nothing(tmp_path: Path) -> None:
    """All modules are imported in a fresh process: no file appears where it stands, nothing is printed, no logging is set up."""
    names = [name for name in SOURCES if name.startswith("latentsync") and not name.endswith("__main__")]
    program = (
        "import importlib, logging, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "import torch\n"
        "assert not logging.getLogger().handlers, 'logging was set up'\n"
        "assert not torch.cuda.is_initialized(), 'the device was touched'\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *names], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
