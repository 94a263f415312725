"""Run ffmpeg and ffprobe through one door: argument lists, checked exit status, one readable reason when they fail."""

import contextlib
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from typing import IO

import numpy as np

from latentsync.errors import LatentSyncError

QUIET = ("-hide_banner", "-nostats", "-loglevel", "error")  # ffmpeg then writes nothing but errors
PIPE_BYTES = 1 << 20  # asked of the system for each frame pipe: fewer, larger reads than the usual 64 KiB
DISK_FULL = "No space left on device"  # how ffmpeg says it
DISK_FAILS = "Input/output error"  # likewise
_TAIL_LINES = 40  # lines of stderr that are kept: enough for the cause, bounded for a file with thousands of errors
_FIRST_FRAME = re.compile(r"^frame:\d+\s+pts:\S+\s+pts_time:(\S+)")  # what ffmpeg's metadata=print filter writes
_ECHO = re.compile(r"^(frame:\d+\s|lavfi\.latentsync)")  # the same filter's lines: ours, no errors
_ORIGIN = re.compile(r"^(?:\[[^\]]* @ 0x[0-9a-f]+\]\s*)+")  # "[libx264 @ 0x5581] "
_EMPTY_WORDS = ("conversion failed", "last message repeated", "error closing file", "terminating thread", "task finished")


class Child:
    """One running ffmpeg or ffprobe, in a session of its own so that Ctrl-C in the terminal reaches this process alone.

    Its standard error is drained by a thread into a bounded tail, so it can never block. Whoever starts a child ends it
    with `finish` (wait for it) or `kill`; both reap it and may be called twice.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        feed: bool = False,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        files: Sequence[IO[bytes]] = (),
    ) -> None:
        """Start `arguments` (program first); `feed` opens its standard input, `stdout` is subprocess.PIPE or a file.

        `files` stay open in it under their numbers: ffmpeg writes to `pipe_url` of one.
        """
        require_program(arguments[0])
        source = subprocess.PIPE if feed else subprocess.DEVNULL
        self._process = subprocess.Popen(
            list(arguments),
            stdin=source,
            stdout=stdout,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=[file.fileno() for file in files],
        )
        self.stdin = self._process.stdin
        self.stdout = self._process.stdout
        for pipe in (self.stdin, self.stdout):
            _widen(pipe)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._first_time: float | None = None
        self._first_known = threading.Event()
        self._drain = threading.Thread(target=self._read_errors, name="ffmpeg-stderr", daemon=True)
        self._drain.start()

    def first_frame_time(self) -> float | None:
        """Time stamp in seconds of the first frame that a metadata=print filter announced; None when it ended without one."""
        self._first_known.wait()
        return self._first_time

    def finish(self) -> int:
        """Wait for the end; returns the exit status."""
        self._close_pipes()
        status = self._process.wait()
        self._drain.join()
        return status

    def interrupt(self) -> None:
        """End it at once, and reap it, but leave the pipes: for a thread that may still be writing and is about to notice."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it at once, reap it and close the pipes."""
        self.interrupt()
        self.finish()

    def errors(self) -> list[str]:
        """The last lines it wrote to standard error, oldest first, without the addresses that ffmpeg prefixes."""
        return [line for line in self._tail if not any(word in line.lower() for word in _EMPTY_WORDS)]

    def reason(self) -> str:
        """The most telling line of its standard error, for the user: the cause comes first, what follows from it later."""
        lines = self.errors()
        full = [line for line in lines if DISK_FULL in line]
        return (full or lines or [f"it ended with status {self._process.returncode} and no message"])[0]

    def _close_pipes(self) -> None:
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            pending = b""
            while block := stream.read(4096):
                *lines, pending = (pending + block).replace(b"\r", b"\n").split(b"\n")
                pending = pending[-4096:]
                for line in lines:
                    self._note(line)
            self._note(pending)
        self._first_known.set()

    def _note(self, raw: bytes) -> None:
        line = _ORIGIN.sub("", raw.decode("utf-8", "replace").strip())
        first = _FIRST_FRAME.match(line)
        if first and not self._first_known.is_set():
            with contextlib.suppress(ValueError):
                self._first_time = float(first.group(1))
            self._first_known.set()
        elif line and not _ECHO.match(line):
            self._tail.append(line)


def require_program(name: str) -> None:
    """Raise LatentSyncError when `name` (ffmpeg, ffprobe) is not installed."""
    if shutil.which(name) is None:
        raise LatentSyncError(f"the program {name} was not found on PATH: install ffmpeg (`apt-get install ffmpeg`, for example)")


def file_url(path: object) -> str:
    """A path as ffmpeg must be told it: with the protocol, so that no name is read as an option, a URL or a device."""
    return f"file:{path}"


def pipe_url(file: IO[bytes]) -> str:
    """An open file as ffmpeg must be told it; it is written from where it stands."""
    return f"pipe:{file.fileno()}"


def read_exactly(stream: IO[bytes], target: np.ndarray) -> bool:
    """Fill `target` (contiguous, any shape) from an unbuffered pipe; False when the stream ended before it was full."""
    view = memoryview(target).cast("B")
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            return False
        filled += count
    return True


def write_all(stream: IO[bytes], frame: np.ndarray) -> None:
    """Write a whole contiguous array to an unbuffered pipe."""
    view = memoryview(frame).cast("B")
    while len(view):
        view = view[stream.write(view) :]


def _widen(pipe: IO[bytes] | None) -> None:
    """Ask for a larger pipe where the system has such a thing; a refusal costs speed only."""
    if pipe is None:
        return
    try:
        import fcntl  # not on every system
    except ImportError:
        return
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
