"""Rules that a machine can check: import layers, no circles, unique class names, declared packages, and what no file may do."""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES = 770
LAYERS = (  # a module imports from its own package and from lower layers; of two names that fit the longer one counts
    ("latentsync.constants", "latentsync.errors"),
    ("latentsync.published_config",),
    ("latentsync.config", "latentsync.weights", "latentsync.media", "latentsync.cli", "latentsync.cluster"),
    ("latentsync.third_party",),
    ("latentsync.models", "latentsync.faces", "latentsync.mel", "latentsync.whisper", "latentsync.voice_activity"),
    ("latentsync.diffusion", "latentsync.losses", "latentsync.data", "latentsync.sync_meter"),
    ("latentsync.pipelines", "latentsync.training"),
    ("latentsync.app", "eval"),
    ("scripts", "preprocess"),
    ("gradio_app", "benchmarks", "comfyui", "predict"),
    ("embedded",),
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
FOLDERS = ("latentsync", "scripts", "preprocess", "eval", "benchmarks", "comfyui", "embedded")
NOT_IMPORTED = {"ruff", "pytest-xdist", "tensorboard"}  # two commands, and what torch.utils.tensorboard imports
NEED_RAY = {"latentsync.cluster", "preprocess.ray_runner", "scripts.ray_jobs"}  # imported by those who ask for a cluster alone
NOT_DECLARED = {"bitsandbytes", "comfy", "cog"}  # the 8-bit optimizer, on CUDA only; what ComfyUI and Cog bring
PIN = re.compile(r"([A-Za-z0-9_.-]+)==[0-9][A-Za-z0-9.]*(; python_version (>=|<) \"3\.\d+\")?")


def read(*paths: Path) -> dict[str, ast.Module]:
    """Modules by dotted name, parsed."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for path, name in names.items()}


PATHS = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts)]
TEST_PATHS = [path for folder in ("tests", "embedded/tests") for path in (ROOT / folder).rglob("*.py")]
SOURCES = read(*PATHS)


def imports(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in modules else node.module for name in names}


def tops(tree: ast.Module) -> set[str]:
    return {name.split(".")[0] for name in imports(tree, {})}


def package_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to; "" if there is none."""
    return max((name for name in LAYER_OF if module == name or module.startswith(f"{name}.")), key=len, default="")


def wrong_imports(name: str, tree: ast.Module, modules: dict[str, ast.Module]) -> list[str]:
    """Imports from the same layer or from a higher one."""
    here = package_of(name)
    own = [target for target in imports(tree, modules) if package_of(target) not in ("", here)]
    return [f"{name} imports {target}" for target in own if LAYER_OF[package_of(target)] >= LAYER_OF[here]]


def test_imports_go_down() -> None:
    assert [name for name in SOURCES if not package_of(name)] == ["latentsync"], "whose version and exports any layer may read"
    assert [line for name, tree in SOURCES.items() if package_of(name) for line in wrong_imports(name, tree, SOURCES)] == []
    assert [name for name, tree in SOURCES.items() if package_of(name) in LAYERS[0] and not tops(tree) <= sys.stdlib_module_names] == []
    assert [name for name, tree in SOURCES.items() if package_of(name) == "latentsync.media" and "torch" in tops(tree)] == []


def test_a_wrong_import_is_found() -> None:
    for name, line in {
        "latentsync.errors": "import latentsync.config",
        "latentsync.media.video_reader": "from latentsync import weights",
        "latentsync.pipelines.build": "def f():\n    import scripts.inference",
        "scripts.inference": "from preprocess import step",
        "preprocess.step": "from embedded.talking_heads import clip",
    }.items():
        assert len(wrong_imports(name, ast.parse(line), SOURCES)) == 1


def test_no_import_circles() -> None:
    graph = {name: set(imports(tree, SOURCES)) & SOURCES.keys() - {name} for name, tree in SOURCES.items()}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}, "these modules import each other in a circle"


def test_class_names_are_unique() -> None:
    counts = Counter(node.name for tree in SOURCES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, number in counts.items() if number > 1] == []


def faults(name: str, tree: ast.Module) -> list[str]:
    """Lines of a module that break a rule."""
    found = [] if ast.get_docstring(tree) or not tree.body else [f"{name}: no docstring"]
    for node in ast.walk(tree):
        problem = ""
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            problem = "bare except"
        elif isinstance(node, ast.Global):
            problem = "changed global"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
            problem = f"{node.name} is longer than 60 lines"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            values = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if called == "print" and name.startswith("latentsync"):
                problem = "print in the library"
            elif values.get("shell") or called in ("os.system", "os.popen"):
                problem = "a shell"
            elif called == "torch.load" and values.get("weights_only") is not True:
                problem = "torch.load without weights_only=True"
        found += [f"{name}:{node.lineno}: {problem}"] if problem else []
    return found


def test_rules_of_code() -> None:
    assert [fault for name, tree in SOURCES.items() for fault in faults(name, tree)] == []
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in PATHS}
    assert [path.name for path, number in lines.items() if number > MOST_LINES] == []


def test_a_broken_rule_is_found() -> None:
    for line in (
        *("print(1)", "subprocess.run('ls', shell=True)", "os.system('ls')", "torch.load(path)", "torch.load(path, weights_only=False)"),
        *("try:\n    pass\nexcept:\n    pass", "def f():\n    global x", "def f():\n" + "    x = 1\n" * 60),
    ):
        assert len(faults("latentsync.x", ast.parse(f'"""Doc."""\n{line}'))) == 1, line


def normal(distribution: str) -> str:
    """A name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(pattern: str) -> set[str]:
    """Distributions that requirement files pin."""
    lines = [line.split("#")[0].strip() for path in ROOT.glob(pattern) for line in path.read_text().splitlines()]
    assert [line for line in lines if line and not PIN.fullmatch(line)] == []
    return {normal(PIN.match(line)[1]) for line in lines if line}


def test_every_import_is_declared_and_every_declaration_is_used() -> None:
    own = {*FOLDERS, "tests", "gradio_app", "predict", *(path.stem for path in TEST_PATHS)} | sys.stdlib_module_names
    every, base = declared("requirements*.txt"), declared("requirements.txt") | declared("requirements-nodeps.txt")
    users = {name: tops(tree) - own - NOT_DECLARED for name, tree in {**SOURCES, **read(*TEST_PATHS)}.items()}
    known = packages_distributions()  # of what is installed
    providers = {name: {normal(provider) for provider in known.get(name, [name])} for name in set().union(*users.values())}
    assert [name for name in providers if not providers[name] & every] == []
    assert every - set().union(*providers.values()) == NOT_IMPORTED
    everywhere = base | declared("requirements-app.txt") | declared("requirements-training.txt")
    more = {name: [top for top in users[name] if not providers[top] & everywhere] for name in SOURCES if package_of(name) != "embedded"}
    optional = {name: ["ray"] for name in NEED_RAY} | {"latentsync.voice_activity": ["silero_vad"]}
    assert {name: needed for name, needed in more.items() if needed} == optional
    beyond = {name: [top for top in users[name] if not providers[top] & base] for name in reached_from("scripts.inference", "predict")}
    assert {name: needed for name, needed in beyond.items() if needed and name not in optional} == {}, (
        "inference needs requirements.txt alone"
    )


def reached_from(*names: str) -> set[str]:
    """Modules that these import, wherever in the file, and so on."""
    found, left = set(), [*names]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += set(imports(SOURCES[name], SOURCES)) & SOURCES.keys()
    return found


def test_importing_does_nothing(tmp_path: Path) -> None:
    """A fresh process imports all modules of the library: no file is written, nothing printed, no logging set up, no device touched."""
    names = [name for name in SOURCES if name.startswith("latentsync") and not name.endswith("__main__") and name not in NEED_RAY]
    program = (
        "import importlib, logging, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "import torch\n"
        "assert not logging.getLogger().handlers and not torch.cuda.is_initialized()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", program, *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, "", []), done.stderr
