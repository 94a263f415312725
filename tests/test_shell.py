"""The commands of the root folder: from any folder, with any file name, twice, and inside somebody else's shell."""

import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = Path(sys.prefix)
STAMP = ENVIRONMENT / ".latentsync-setup"
IS_ENVIRONMENT = any((ENVIRONMENT / mark).exists() for mark in ("pyvenv.cfg", "conda-meta"))

PYTHON_DOUBLE = """#!/bin/sh
# Stands in for python: says what it was called with.
[ "$1" = "-V" ] && { echo "Python 3.11.0"; exit 0; }
case "$2" in *platform*) echo x86_64 ;; esac
[ "$1" = "-m" ] || exit 0
echo "cwd=$PWD"
echo "path=$PYTHONPATH"
for word in "$@"; do echo "word=$word"; done
"""

APT_DOUBLE = """#!/bin/sh
# Stands in for apt-get: notes what it was called with; `install` makes commands of that name beside it.
echo "$@" >>"$0.log"
[ "$1" = install ] || exit 0
for word in "$@"; do case "$word" in flite | espeak-ng) echo '#!/bin/sh' >"${0%/*}/$word" && chmod +x "${0%/*}/$word" ;; esac; done
"""


def shell(command: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, downloads off."""
    inherited = {key: value for key, value in os.environ.items() if key != "LATENTSYNC_SETUP"}
    environment = inherited | {"LATENTSYNC_DOWNLOAD": "0"} | variables
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def with_environment(folder: Path) -> dict[str, str]:
    """Variables under which the environment of this test run is the active one."""
    return {"VIRTUAL_ENV": str(folder), "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def stamp_for(folder: Path, python: Path = Path(sys.executable)) -> str:
    """What setup_env.sh of a folder writes into an environment that has its packages."""
    return shell(f"echo \"$(cat requirements.txt requirements-nodeps.txt | cksum) $('{python}' -V)\"", folder).stdout


needs_set_up = pytest.mark.skipif(
    not STAMP.is_file() or STAMP.read_text() != stamp_for(ROOT),
    reason="setup_env.sh has not set up this environment; a test installs nothing",
)


@pytest.fixture
def double(tmp_path: Path) -> dict[str, str]:
    """An active environment whose python only says what it was called with; nothing gets installed."""
    folder = tmp_path / "an environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(PYTHON_DOUBLE)
    (folder / "bin" / "python").chmod(0o755)
    return with_environment(folder) | {"LATENTSYNC_SETUP": "0"}


def test_scripts_can_be_executed_and_parsed() -> None:
    patterns = (".ci/run", "*.sh", "eval/*.sh", "embedded/*.sh", "scripts/*.sh")
    scripts = [path for pattern in patterns for path in ROOT.glob(pattern)]
    assert len(scripts) > 10 and [path for path in scripts if not os.access(path, os.X_OK)] == []
    assert [path for path in scripts if subprocess.run(["bash", "-n", path]).returncode] == []


def test_an_ablation_that_does_not_exist_is_refused_before_anything_is_trained(tmp_path: Path, double: dict[str, str]) -> None:
    done = shell(f"'{ROOT}/embedded/ablate.sh' '{tmp_path}/a b' 1 1 no_sync nothing", tmp_path, **double)
    assert done.returncode == 2 and done.stderr == "embedded/ablate.sh: there is no variant 'nothing'\n"
    assert not list(tmp_path.glob("a b*"))


@pytest.mark.parametrize(
    ("script", "command"), [("inference.sh", ["scripts.inference"]), ("run_tests.sh", ["pytest", "-n", "auto", "--dist", "worksteal"])]
)
def test_arguments_are_passed_on_from_any_folder(tmp_path: Path, double: dict[str, str], script: str, command: list[str]) -> None:
    arguments = ["--video_path", "-a b'c\"é.mp4", "--flag", "", "$HOME", "*"]
    done = shell(shlex.join([str(ROOT / script), *arguments]), tmp_path, **double)
    cwd, path, *words = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert cwd == f"cwd={tmp_path if script == 'inference.sh' else ROOT}", "relative paths of the caller would not be found"
    assert path.removeprefix("path=").split(":")[0] == str(ROOT) or script == "run_tests.sh"
    assert words == [f"word={word}" for word in ("-m", *command, *arguments)]


def test_sourcing_leaves_the_callers_shell_alone(double: dict[str, str]) -> None:
    line = "source ./setup_env.sh; command -v python; set -o; compgen -v | grep -i latentsync_; declare -F"
    before = shell("set -o", **double).stdout
    done = shell(line, **double)
    assert done.stdout == f"{double['VIRTUAL_ENV']}/bin/python\n{before}LATENTSYNC_DOWNLOAD\nLATENTSYNC_SETUP\n"
    strict = shell("set -euo pipefail; source ./setup_env.sh; echo alive", **double)
    assert strict.stdout == "alive\n", strict.stderr


@pytest.mark.skipif(not IS_ENVIRONMENT, reason="Python runs outside an environment, and a test makes none")
def test_a_failed_set_up_does_not_end_the_callers_shell(tmp_path: Path) -> None:
    (tmp_path / "setup_env.sh").write_text((ROOT / "setup_env.sh").read_text())
    (tmp_path / "requirements.txt").write_text("no such requirement ==\n")
    (tmp_path / "requirements-nodeps.txt").write_text("")
    before = STAMP.read_text() if STAMP.exists() else None
    done = shell(f"source '{tmp_path}/setup_env.sh' || echo went on $?", **with_environment(ENVIRONMENT))
    assert done.stdout == "went on 1\n"
    assert "the packages could not be installed: ERROR: Invalid requirement: 'no such requirement ==" in done.stderr
    assert (STAMP.read_text() if STAMP.exists() else None) == before


@needs_set_up
def test_second_set_up_changes_nothing() -> None:
    before = STAMP.stat().st_mtime_ns
    done = shell("./setup_env.sh", **with_environment(ENVIRONMENT))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ENVIRONMENT}\n", "")
    assert STAMP.stat().st_mtime_ns == before


@pytest.fixture
def bare_machine(tmp_path: Path, double: dict[str, str]) -> dict[str, str]:
    """A copy of setup_env.sh on a machine with ffmpeg, apt-get and the double's environment, without speech programs; the user is root."""
    tools = tmp_path / "tools"
    tools.mkdir()
    programs = "awk bash sh cat chmod cksum cut date df dirname du env find flock grep mkdir mv rm sed sort tail touch uname wc"
    for name in programs.split():
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    programs = {"apt-get": APT_DOUBLE, "id": "#!/bin/sh\necho 0\n", "ffmpeg": "#!/bin/sh\n", "ffprobe": "#!/bin/sh\n"}
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for path in (ROOT / "setup_env.sh", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, tmp_path)
    return double | {"PATH": f"{double['VIRTUAL_ENV']}/bin:{tools}", "LATENTSYNC_SETUP": "1"}


def set_up(folder: Path, machine: dict[str, str], *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Call setup_env.sh; its outcome, and the requirement files that it gave to pip."""
    done = shell(" ".join(["./setup_env.sh", *options]), folder, **machine)
    log = Path(machine["VIRTUAL_ENV"]) / ".latentsync-setup.log"
    words = [line.removeprefix("word=") for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return done, [Path(after).name for word, after in pairwise(words) if word == "-r"]


def test_a_part_that_is_asked_for_later_installs_itself_alone(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    log = tmp_path / "tools" / "apt-get.log"
    done, files = set_up(tmp_path, bare_machine)
    assert (done.returncode, done.stdout) == (0, f"{bare_machine['VIRTUAL_ENV']}\n"), done.stderr
    assert files == ["requirements.txt", "requirements-nodeps.txt"] and not log.exists()
    done, files = set_up(tmp_path, bare_machine, "--with-speech")
    assert (done.returncode, files) == (0, ["requirements-training.txt", "requirements-embedded.txt"]), done.stderr
    installed = log.read_text().splitlines()
    assert installed[-1].startswith("install ") and installed[-1].endswith(" flite espeak-ng")
    again, _ = set_up(tmp_path, bare_machine, "--with-speech")
    assert (again.returncode, again.stderr, log.read_text().splitlines()) == (0, "", installed)
    done, files = set_up(tmp_path, bare_machine, "--with-dev")
    assert (done.returncode, files) == (0, ["requirements-app.txt", "requirements-dev.txt"]), done.stderr
    with (tmp_path / "requirements.txt").open("a") as file:
        file.write("another==1.0\n")
    assert set_up(tmp_path, bare_machine, "--with-dev")[1] == ["requirements.txt", "requirements-nodeps.txt"]


def test_programs_of_the_tests_are_tried_for_once_a_day_and_never_needed(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    log = tmp_path / "tools" / "apt-get.log"
    (tmp_path / "tools" / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    without, _ = set_up(tmp_path, bare_machine, "--with-dev")
    assert without.returncode == 0 and "chromium could not be installed" in without.stderr
    (tmp_path / "tools" / "apt-get").write_text(APT_DOUBLE)
    assert (set_up(tmp_path, bare_machine, "--with-dev")[0].stderr, log.exists()) == ("", False), "not tried twice a day"
    (tmp_path / ".setup" / "programs-tried").unlink()
    assert set_up(tmp_path, bare_machine, "--with-dev")[0].returncode == 0
    assert [line.split()[-1] for line in log.read_text().splitlines() if line.startswith("install")] == ["flite", "espeak-ng", "chromium"]


def test_a_set_up_that_does_not_fit_on_the_disk_is_refused_before_anything_is_fetched(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    (tmp_path / "tools" / "df").unlink()
    (tmp_path / "tools" / "df").write_text("#!/bin/sh\necho Filesystem\necho disk 9000 8000 1000 88% /\n")
    (tmp_path / "tools" / "df").chmod(0o755)
    done, files = set_up(tmp_path, bare_machine)
    assert (done.returncode, files) == (1, [])
    assert "of disk space are needed" in done.stderr and "1.0 GB are free" in done.stderr and done.stderr.count("\n") == 1


def test_progress_is_a_few_lines_and_a_failure_one(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    python = Path(bare_machine["VIRTUAL_ENV"]) / "bin" / "python"
    sizes = "".join(f"echo '  Downloading part{number}-1.0-none-any.whl (80.5 MB)'\n" for number in range(40))
    python.write_text(
        PYTHON_DOUBLE + f'case "$*" in *no-deps* | *cv2*) exit 0 ;; esac\n{sizes}echo "Installing collected packages: a, b"\n'
    )
    done, _ = set_up(tmp_path, bare_machine)
    told = done.stderr.splitlines()
    assert done.returncode == 0 and len(told) <= 9, done.stderr
    assert [line.split(", ")[-1] for line in told if "downloading" in line][-1] == "3.2 GB of about 3.2 GB"
    with (tmp_path / "requirements.txt").open("a") as file:
        file.write("another==1.0\n")
    for said, meant in {
        "OSError: [Errno 28] No space left on device": "the disk is full",
        "ProxyError('Unable to connect to proxy')": "HTTPS_PROXY",
        "SSL: CERTIFICATE_VERIFY_FAILED": "PIP_CERT",
        "NewConnectionError: Temporary failure in name resolution": "the network",
        "ERROR: No matching distribution found for torch==9": "has no torch==9 for",
        "ERROR: something else": "ERROR: something else",
    }.items():
        python.write_text(PYTHON_DOUBLE + f'[ "$3" = install ] || exit 0\necho "{said}"\nexit 1\n')
        done, _ = set_up(tmp_path, bare_machine)
        assert done.returncode == 1 and meant in done.stderr.splitlines()[-1]


def test_set_up_refuses_an_unknown_argument(double: dict[str, str]) -> None:
    done = shell("./setup_env.sh --with-sound", **double)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--with-sound" in done.stderr


def test_modules_run_from_any_folder_after_set_up(tmp_path: Path) -> None:
    """In copies with a module of their own and an environment that needs no packages."""
    shared, place = tmp_path / "an environment", tmp_path / "somewhere else"
    clones = [tmp_path / "a clone", tmp_path / "a worktree"]
    place.mkdir()
    for clone in clones:
        (clone / "preprocess").mkdir(parents=True)
        (clone / "preprocess" / "where.py").write_text(f"print({clone.name!r})")
        shutil.copy(ROOT / "setup_env.sh", clone)
        for name in ("requirements.txt", "requirements-nodeps.txt"):
            (clone / name).touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", shared], check=True)
    (shared / STAMP.name).write_text(stamp_for(clones[0], shared / "bin" / "python"))
    shutil.copytree(shared, clones[0] / ".venv", symlinks=True)

    def told(clone: Path, folder: Path) -> str:
        return shell("./setup_env.sh", clone, **with_environment(folder)).stderr

    def said(folder: Path, cwd: Path = place, **variables: str) -> str:
        inherited = {"PYTHONPATH": "", "PYTHONSAFEPATH": ""} | variables
        return shell(f"'{folder}/bin/python' -m preprocess.where", cwd, **inherited).stdout.rstrip()

    assert said(shared) == ""
    assert told(clones[0], shared) == "" and said(shared) == "a clone"
    assert (said(shared, clones[1]), said(shared, PYTHONPATH=str(clones[1]), PYTHONSAFEPATH="1")) == ("a worktree", "a worktree")
    assert told(clones[1], shared) == "" and said(shared) == "a worktree"  # of a shared one: whoever set up last
    assert told(clones[1], clones[0] / ".venv") == "" and said(clones[0] / ".venv") == "a clone"  # a clone's own stays its own
    (note,) = shared.glob("lib/python3.*/site-packages/latentsync.pth")
    note.unlink()
    note.mkdir()  # cannot be written, whoever asks
    assert told(clones[1], shared) == f"setup_env: {note} cannot be written: python -m finds the modules in {clones[1]} alone\n"


@pytest.mark.parametrize(
    ("module", "line", "meant"),
    [
        ("scripts.inference", "--enable_deepcache --temp_dir t key=1", {"cache_interval": 3, "overrides": ["key=1"]}),
        ("eval.eval_sync_conf", "--initial_model m --video_path a --temp_dir t", {"video": Path("a"), "output_dir": None}),
        ("eval.eval_sync_conf", "--videos_dir a", {"video": Path("a")}),
        ("eval.eval_syncnet_acc", "--config_path a --checkpoint b", {"config": Path("a")}),
        (
            "preprocess.data_processing_pipeline",
            "--total_num_workers 96 --per_gpu_num_workers 12 --resolution 256 --sync_conf_threshold 3 --temp_dir t",
            {"workers": 96, "per_gpu_num_workers": 12, "resolution": 256},
        ),
        ("scripts.train_unet", "--unet_config_path a", {"config_path": Path("a")}),
        ("scripts.train_syncnet", "--config_path a", {"config_path": Path("a")}),
    ],
)
def test_options_of_the_published_commands_are_accepted(
    module: str, line: str, meant: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    command = import_module(module)
    words = line.split() + (["--input_dir", "raw"] if module.startswith("preprocess") else [])
    is_training = hasattr(command, "DEFAULT_CONFIG")  # these commands share a parser
    parsed = command.parse_arguments(*(["", "", command.DEFAULT_CONFIG] if is_training else []), words)
    assert {name: getattr(parsed, name) for name in meant} == meant
    told = [record.getMessage().split()[0] for record in caplog.records if "has no effect here: " in record.getMessage()]
    assert told == [word for word in words if word in ("--initial_model", "--temp_dir")]
    assert not {"enable_deepcache", "initial_model", "temp_dir"} & set(vars(parsed))


COMMANDS = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
    for path in (
        ROOT / "gradio_app.py",
        *(path for folder in ("scripts", "preprocess", "eval", "embedded") for path in (ROOT / folder).rglob("*.py")),
    )
    if "def main(arguments" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", COMMANDS)
def test_help_of_each_command_can_be_read(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    package = import_module(f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module)
    with pytest.raises(SystemExit) as ended:
        package.main(["--help"])
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out
