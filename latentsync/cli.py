"""How a command starts and ends: imports, messages, exit codes, Ctrl-C."""

import argparse
import gc
import logging
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentsync.constants import VERSION
from latentsync.errors import LatentSyncError, first_line

INTERRUPTED = 130  # the shell's own exit code for Ctrl-C
CODES = "Exit codes: 0 done, 1 failed, 2 unusable input, 130 interrupted."
TEMP_DIR = {"--temp_dir": "temporary files are written to $TMPDIR, unfinished results beside the finished ones"}


class _WithoutEffect(argparse.Action):
    """An option that does nothing but say so; its help is the reason."""

    def __init__(self, option_strings: list[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, metavar="VALUE", **rest)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        logging.getLogger("latentsync.cli").warning("%s has no effect here: %s", option_string, self.help)


def accept_published(parser: argparse.ArgumentParser, reasons: Mapping[str, str]) -> None:
    """Accept options of the published command that have no effect here; a line says so when one is given.

    Args:
        reasons: option -> why it has none.
    """
    group = parser.add_argument_group("published options without effect here")
    for option, reason in reasons.items():
        group.add_argument(option, action=_WithoutEffect, help=reason)


def about_package(name: str) -> str:
    """What to do about a package that is not installed: which part of the set-up brings it, by the requirement files."""
    for path in sorted(Path(__file__).resolve().parents[1].glob("requirements-*.txt")):
        part = path.stem.removeprefix("requirements-")
        if re.search(rf"^{re.escape(name.partition('.')[0]).replace('_', '[-_]')}==", path.read_text(encoding="utf-8"), re.MULTILINE):
            how = {"embedded": "./setup_env.sh --with-speech"}.get(part, f"./setup_env.sh --with-{part}")
            how = f"pip install -r {path.name}" if part in ("ray", "voice") else how
            return f"The package {name} is not installed: run {how}, then this again."
    return f"The package {name} is not installed: run ./setup_env.sh, then this again."


def add_version(parser: argparse.ArgumentParser) -> None:
    """The option --version of a command."""
    parser.add_argument("--version", action="version", version=f"LatentSync {VERSION}", help="print the version and stop")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without the garbage collector, which takes a second or two to look through what stays anyway."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_command(
    work: Callable[[], int | None],
    logger_name: str,
    interrupted: str,
    *,
    quiet: bool = False,
    verbose: bool | None = None,
    signals: bool = True,
) -> int:
    """Do the work of a command; its exit code: what `work` returns, None for 0, or that of the error that it met.

    Args:
        work: the command.
        logger_name: whose progress is told: "latentsync", "eval", "preprocess". Other loggers tell warnings alone.
        interrupted: the sentence behind "Interrupted: " after Ctrl-C, SIGTERM or a closed terminal.
        quiet: warnings and errors only.
        verbose: tell more, and where an unexpected failure happened; None for a command without such an option: failures alone do.
        signals: whether SIGTERM and SIGHUP, unless they are ignored, clean up like Ctrl-C; False where the work handles signals itself.
    """
    logger = logging.getLogger(logger_name)
    before = logger.level
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if signals:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
    try:
        return work() or 0
    except LatentSyncError as error:
        logger.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        logger.error("Interrupted: %s", interrupted)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        logger.error("%s", about_package(error.name or str(error)))
        return 1
    except Exception as error:
        hint = ": run again with --verbose to see where" if verbose is False else ""
        logger.error("Unexpected failure (%s: %s)%s.", type(error).__name__, first_line(error), hint, exc_info=None if hint else error)
        return 1
    finally:
        logger.setLevel(before)  # a caller of this function finds it unchanged
