"""The commands of the root folder: from any folder, with any file name, twice, and inside somebody else's shell."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = Path(sys.prefix)
SET_UP = (ENVIRONMENT / ".latentsync-setup").is_file()
IS_ENVIRONMENT = any((ENVIRONMENT / mark).exists() for mark in ("pyvenv.cfg", "conda-meta"))
needs_set_up = pytest.mark.skipif(not SET_UP, reason="this environment was not made by setup_env.sh, and a test installs nothing")

PYTHON_DOUBLE = """#!/bin/sh
# Stands in for python: says what it was called with.
[ "$1" = "-V" ] && { echo "Python 3.11.0"; exit 0; }
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


@pytest.fixture
def double(tmp_path: Path) -> dict[str, str]:
    """An active environment whose python only says what it was called with; nothing gets installed."""
    folder = tmp_path / "an environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(PYTHON_DOUBLE)
    (folder / "bin" / "python").chmod(0o755)
    return with_environment(folder) | {"LATENTSYNC_SETUP": "0"}


@pytest.mark.parametrize(
    "name",
    [
        *("setup_env.sh", "inference.sh", "run_tests.sh", ".ci/run", "train_unet.sh", "train_syncnet.sh", "data_processing_pipeline.sh"),
        *("eval/eval_talking_heads.sh", "eval/eval_sync_conf.sh", "eval/eval_syncnet_acc.sh", "embedded/train.sh"),
        "scripts/ablate_embedded.sh",
    ],
)
def test_scripts_can_be_executed_and_parsed(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / name)]).returncode == 0


def test_an_ablation_that_does_not_exist_is_refused_before_anything_is_trained(tmp_path: Path, double: dict[str, str]) -> None:
    done = shell(f"'{ROOT}/scripts/ablate_embedded.sh' '{tmp_path}/a b' 1 1 no_sync nothing", tmp_path, **double)
    assert done.returncode == 2 and done.stderr == "ablate_embedded: there is no variant 'nothing'\n"
    assert not list(tmp_path.glob("a b*"))


def test_inference_passes_its_arguments_on_from_any_folder(tmp_path: Path, double: dict[str, str]) -> None:
    arguments = ["--video_path", "-a b'c\"é.mp4", "--flag", "", "$HOME", "*"]
    words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in arguments)
    done = shell(f"'{ROOT}/inference.sh' {words}", tmp_path, **double)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == f"cwd={tmp_path}", "relative paths of the caller would not be found"
    assert lines[1].removeprefix("path=").split(":")[0] == str(ROOT)
    assert lines[2:] == [f"word={word}" for word in ("-m", "scripts.inference", *arguments)]


def test_run_tests_passes_its_arguments_on_from_any_folder(tmp_path: Path, double: dict[str, str]) -> None:
    lines = shell(f"'{ROOT}/run_tests.sh' -k 'a or b'", tmp_path, **double).stdout.splitlines()
    assert lines[0] == f"cwd={ROOT}"
    assert lines[2:] == [f"word={word}" for word in ("-m", "pytest", "-k", "a or b")]


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
    active = with_environment(ENVIRONMENT)
    stamp = ENVIRONMENT / ".latentsync-setup"
    before = stamp.read_text() if SET_UP else None
    done = shell(f"source '{tmp_path}/setup_env.sh' || echo went on $?", **active)
    assert done.stdout == "went on 1\n"
    assert "could not be installed" in done.stderr
    assert (stamp.read_text() if stamp.exists() else None) == before


@needs_set_up
def test_second_set_up_is_quick_and_changes_nothing() -> None:
    stamp = ENVIRONMENT / ".latentsync-setup"
    before = stamp.stat().st_mtime_ns
    start = time.monotonic()
    done = shell("./setup_env.sh", **with_environment(ENVIRONMENT))
    assert time.monotonic() - start < 3
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ENVIRONMENT}\n", "")
    assert stamp.stat().st_mtime_ns == before


@needs_set_up
def test_inference_explains_itself_from_another_folder(tmp_path: Path) -> None:
    done = shell(f"'{ROOT}/inference.sh' --help", tmp_path, **with_environment(ENVIRONMENT))
    assert done.returncode == 0, done.stderr
    assert "--video_path" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bare_machine(tmp_path: Path, double: dict[str, str]) -> dict[str, str]:
    """The double's environment on a machine with ffmpeg and apt-get, but without programs that speak; the user is root."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "cat", "chmod", "cksum", "dirname", "env", "find", "flock", "mkdir", "touch"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    programs = {"apt-get": APT_DOUBLE, "id": "#!/bin/sh\necho 0\n", "ffmpeg": "#!/bin/sh\n", "ffprobe": "#!/bin/sh\n"}
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return double | {"PATH": f"{double['VIRTUAL_ENV']}/bin:{tools}", "LATENTSYNC_SETUP": "1"}


def test_speech_is_installed_when_asked_for_and_once(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    log = tmp_path / "tools" / "apt-get.log"
    plain = shell("./setup_env.sh", **bare_machine)
    assert plain.returncode == 0, plain.stderr
    assert not log.exists()
    first = shell("./setup_env.sh --with-speech", **bare_machine)
    assert (first.returncode, first.stdout) == (0, f"{bare_machine['VIRTUAL_ENV']}\n"), first.stderr
    installed = log.read_text().splitlines()
    assert installed[-1].startswith("install ") and installed[-1].endswith(" flite espeak-ng")
    second = shell("./setup_env.sh --with-speech", **bare_machine)
    assert (second.returncode, second.stderr) == (0, "")
    assert log.read_text().splitlines() == installed


def test_speech_that_cannot_be_installed_is_named(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    (tmp_path / "tools" / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    done = shell("./setup_env.sh --with-speech", **bare_machine)
    assert done.returncode == 1
    assert "install both and run this again" in done.stderr.splitlines()[-1]


def test_a_browser_is_tried_for_once_a_day_and_never_needed(tmp_path: Path, bare_machine: dict[str, str]) -> None:
    """In a copy: the note that it was tried lies beside the script."""
    for name in ("setup_env.sh", "requirements.txt", "requirements-nodeps.txt"):
        shutil.copy(ROOT / name, tmp_path)
    command, log = f"'{tmp_path}/setup_env.sh' --with-browser", tmp_path / "tools" / "apt-get.log"
    apt = (tmp_path / "tools" / "apt-get").read_text()
    (tmp_path / "tools" / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    without = shell(command, **bare_machine)
    assert without.returncode == 0 and "chromium could not be installed" in without.stderr
    (tmp_path / "tools" / "apt-get").write_text(apt)
    assert (shell(command, **bare_machine).stderr, log.exists()) == ("", False), "not tried twice a day"
    (tmp_path / ".setup" / "browser-tried").unlink()
    assert shell(command, **bare_machine).returncode == 0
    assert log.read_text().splitlines()[-1].endswith(" chromium")


def test_set_up_refuses_an_unknown_argument(double: dict[str, str]) -> None:
    done = shell("./setup_env.sh --with-sound", **double)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--with-sound" in done.stderr
