"""Claims on files that are still to be written, so that many processes and machines share the work without doing any of it twice.

A claim is a hidden file beside the target, made exclusively; it names its owner, who touches it while alive. A claim that nobody has
touched for a while, or whose owner was a process of this machine that is gone, may be taken over. Claims only save work: what is written
under one is a pure function of its name and appears whole, so even a claim that was lost to a stalled disk harms nothing.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentsync.errors import OutputError
from latentsync.media.files import read_record

EXPIRY = 120.0  # s without a sign of life after which a claim is void; clocks of machines may differ by less than half of it
_BEATS = 8  # signs of life in this time


class Claim:
    """The right to write one file, held by this process until it is released or lost."""

    def __init__(self, target: Path, expiry: float = EXPIRY) -> None:
        self.path = claim_path(target)
        self.expiry = expiry
        self._token = secrets.token_hex(8)
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claim", daemon=True)

    def acquire(self) -> bool:
        """Take the claim if it is free or void; whether it is ours now. Raises OutputError when the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_void()
            with self.path.open("x", encoding="utf-8") as file:
                json.dump({"host": socket.gethostname(), "process": os.getpid(), "token": self._token}, file)
        except FileExistsError:
            return False
        except OSError as error:
            raise OutputError(f"cannot write into {self.path.parent}: {(error.strerror or str(error)).lower()}") from None
        self._heart.start()
        return True

    def is_held(self) -> bool:
        """Whether the claim is still ours: another may have found it void while this process was stopped."""
        return read_record(self.path).get("token") == self._token

    def release(self) -> None:
        """Give the claim back."""
        self._done.set()
        if self._heart.is_alive():
            self._heart.join()
        if self.is_held():
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._done.wait(self.expiry / _BEATS):
            with contextlib.suppress(OSError):  # a disk that stalls may come back; the claim is looked at again before anything is written
                if self.is_held():
                    os.utime(self.path)

    def _remove_void(self) -> None:
        """Put a void claim out of the way; of several who find one void, exactly one moves it."""
        found = read_record(self.path)
        if not is_void(self.path, self.expiry):
            return
        aside = self.path.with_name(f"{self.path.name}.{self._token}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if read_record(aside) != found:  # in the meantime somebody else had taken it over: it goes back unless a third one is faster
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()


@contextmanager
def claimed(target: Path, expiry: float = EXPIRY) -> Iterator[Claim | None]:
    """The claim on a file while the block runs, or None where somebody else has it. Raises OutputError."""
    claim = Claim(target, expiry)
    if not claim.acquire():
        yield None
        return
    try:
        yield claim
    finally:
        claim.release()


def claim_path(target: Path) -> Path:
    """Where the claim on a file lies."""
    return target.with_name(f".{target.name}.claim")


def is_claimed(target: Path, expiry: float = EXPIRY) -> bool:
    """Whether somebody who seems alive is about to write a file."""
    path = claim_path(target)
    return path.is_file() and not is_void(path, expiry)


def is_void(path: Path, expiry: float) -> bool:
    """Whether a claim's owner is known to be gone, or has shown no sign of life for `expiry` seconds; False where there is no claim."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    if age > expiry:
        return True
    owner = read_record(path)
    return owner.get("host") == socket.gethostname() and not _is_running(owner.get("process"))


def _is_running(process: object) -> bool:
    if not isinstance(process, int) or process <= 0:
        return True  # not readable yet: its owner is about to write it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's process
    return True
