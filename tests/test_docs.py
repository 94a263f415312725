"""README and docs: links lead somewhere, commands and their options exist, pages stay short."""

import contextlib
import io
import re
import runpy
from functools import cache
from pathlib import Path

import pytest

from latentsync.constants import VERSION

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("assets/*/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LONGEST = 120  # lines of a page of docs/
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"]+)\"")
CODE = re.compile(r"```\w*\n(.*?)```|`([^`]+)`|^    (\S.*)$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:\./|\b(?=(?:eval|embedded)/))([\w/]+\.sh)|python (?:-m ([\w.]+)|(\w+\.py))")
PATH = re.compile(r"\b(?:configs|latentsync|tests|scripts|eval|preprocess|embedded|benchmarks|assets|docs)/[\w/.-]*\w")
NOT_PYTHON = ("setup_env.sh", "run_tests.sh", "embedded/train.sh", "embedded/ablate.sh")  # scripts whose options their text holds


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[tuple[str, str, str]]:
    """The commands of a page: shell script or "", module or "", the words behind it up to the end of the line."""
    found = []
    for match in CODE.finditer(page.read_text(encoding="utf-8")):
        text = next(part for part in match.groups() if part is not None).replace("\\\n", " ")
        for line in text.splitlines():
            for command in COMMAND.finditer(line.split(" #")[0]):
                script, module, file = command.groups()
                found.append((script or "", module or (file or "").removesuffix(".py"), line[command.end() :]))
    return found


@cache
def help_of(module: str, subcommand: str = "") -> str:
    """What a command says to --help."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [module, *subcommand.split(), "--help"])
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return output.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in (first or second for first, second in LINK.findall(page.read_text(encoding="utf-8"))):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_named_files_exist(page: Path) -> None:
    for match in CODE.finditer(page.read_text(encoding="utf-8")):
        for path in PATH.findall(match.group(0)):
            here = (ROOT / path, page.parent / path, ROOT / "latentsync" / path)
            assert path.startswith(("assets/demo", "embedded/configs/")) or any(place.exists() for place in here), f"{page.name}: {path}"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # imported before by another test
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_options_exist(page: Path) -> None:
    for script, module, words in commands(page):
        if module in ("pip", "venv", "pytest", "ruff") or module.startswith("pip"):
            continue
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", words.split("`")[0]))
        if script:
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
            text = (ROOT / script).read_text(encoding="utf-8")
            modules = [] if script in NOT_PYTHON else re.findall(r"exec python -m ((?!torch)[\w.]+)", text)
            text += "".join(help_of(name) for name in modules)
        else:
            text = help_of(module)
            first = next(iter(words.split()), "")
            if re.search(rf"[{{,]{re.escape(first)}[,}}]", text) and first:
                text += help_of(module, first)
        missing = {option for option in options - {"--help"} if not re.search(rf"{option}(?![\w-])", text)}
        assert not missing, f"{page.name}: {script or module} has no {', '.join(sorted(missing))}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_version_is_the_same_everywhere() -> None:
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
