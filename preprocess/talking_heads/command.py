"""What all commands of this room share: polite ends, and every failure in one sentence."""

import logging
import signal
from collections.abc import Callable

from latentsync.errors import LatentSyncError

logger = logging.getLogger("preprocess.talking_heads")

INTERRUPTED = 130  # the shell's own exit code for Ctrl-C


def end_politely() -> None:
    """Let a polite kill and a closed terminal clean up like Ctrl-C."""
    for polite in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, signal.default_int_handler)


def run_command(work: Callable[[], None], interrupted: str, quiet: bool = False) -> int:
    """Run `work`; the exit code: 0, that of the error that was met, or 130 after an interruption, which `interrupted` explains."""
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s")
    end_politely()
    try:
        work()
    except LatentSyncError as error:
        logger.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        logger.error("%s", interrupted)
        return INTERRUPTED
    return 0
