"""What all commands share: what is told, polite ends, and every failure in one sentence with an exit code."""

import logging
import signal
from collections.abc import Callable

from latentsync.errors import LatentSyncError, first_line

INTERRUPTED = 130  # the shell's own exit code for Ctrl-C
CODES = "Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted."


def run_command(
    work: Callable[[], int | None], room: str, interrupted: str, *, quiet: bool = False, verbose: bool | None = None, signals: bool = True
) -> int:
    """Do the work of a command; its exit code: what `work` returns, None for 0, or that of the error that it met.

    Args:
        work: the command.
        room: whose progress is told, as a logger is called: "latentsync", "eval", "preprocess". Others speak of warnings alone.
        interrupted: the sentence behind "Interrupted: " after Ctrl-C, a polite kill or a closed terminal.
        quiet: warnings and errors only.
        verbose: tell more, and where an unexpected failure happened; None for a command without such an option: failures alone do.
        signals: whether a polite kill shall do what Ctrl-C does; False where the work looks after signals itself.
    """
    logger = logging.getLogger(room)
    before = logger.level
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if signals:
        end_politely()
    try:
        return work() or 0
    except LatentSyncError as error:
        logger.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        logger.error("Interrupted: %s", interrupted)
        return INTERRUPTED
    except Exception as error:
        hint = ": run again with --verbose to see where" if verbose is False else ""
        logger.error("Unexpected failure (%s: %s)%s.", type(error).__name__, first_line(error), hint, exc_info=None if hint else error)
        return 1
    finally:
        logger.setLevel(before)  # whoever called this as a function finds it as it was


def end_politely() -> None:
    """Let a polite kill and a closed terminal clean up like Ctrl-C, unless they are ignored."""
    for polite in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, signal.default_int_handler)
