"""What the commands of this folder share: logging, signals, and every failure in one sentence with an exit code."""

import logging
import signal
from collections.abc import Callable

from latentsync.errors import LatentSyncError, first_line

logger = logging.getLogger("eval")

INTERRUPTED = 130  # the shell's own exit code for Ctrl-C
CODES = "Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted."


def run_command(work: Callable[[], int | None], *, verbose: bool, interrupted: str) -> int:
    """Do the work of a command; its exit code. `interrupted` is said after Ctrl-C or a polite kill."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    for polite in (signal.SIGTERM, signal.SIGHUP):  # a polite kill and a closed terminal clean up like Ctrl-C
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, signal.default_int_handler)
    try:
        return work() or 0
    except LatentSyncError as error:
        logger.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        logger.error("Interrupted: %s", interrupted)
        return INTERRUPTED
    except Exception as error:
        logger.error("Unexpected failure (%s: %s): run again with --verbose to see where.", type(error).__name__, first_line(error))
        logger.debug("Where it happened:", exc_info=error)
        return 1


def reason_of(error: Exception) -> str:
    """Why one of many could not be done, in one sentence."""
    return str(error) if isinstance(error, LatentSyncError) else f"unexpected failure ({type(error).__name__}: {first_line(error)})"
