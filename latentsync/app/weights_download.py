"""The published weights: what is missing, and their download in a process of its own, which goes on when a page is closed."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from latentsync.pipelines.build import ROOT
from latentsync.weights import CHECKPOINTS, VERSIONS, WEIGHTS, find_weights

COMMAND = ("-m", "scripts.download_weights")  # of the newest version and what every inference needs
FAILURES = ("not fetched", "No connection")  # lines of that command that say what went wrong hold one of these
NAMES = (f"unet-{VERSIONS[0]}", "whisper-tiny", "vae-config", "vae")
MEGABYTE = 1e6


@dataclass(frozen=True)
class WeightsPlace:
    """Where a file belongs, and where it comes from."""

    path: str
    origin: str
    licence: str
    is_there: bool


def weights_places(root: Path = ROOT) -> list[WeightsPlace]:
    """The files that the newest published version needs."""
    folder = root / CHECKPOINTS
    weights = {name: WEIGHTS[name] for name in NAMES}
    return [
        WeightsPlace(str(CHECKPOINTS / weight.path), weight.origin, weight.licence, find_weights(name, folder) is not None)
        for name, weight in weights.items()
    ]


class WeightsDownload:
    """One download at a time, for any number of threads and pages; a context manager, whose end stops it: it goes on the next time."""

    def __init__(self, root: Path = ROOT, command: tuple[str, ...] = COMMAND) -> None:
        self._root, self._command = root, command
        self._process: subprocess.Popen[str] | None = None
        self._failure, self._before = "", 0
        self._lock = threading.Lock()

    def __enter__(self) -> "WeightsDownload":
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self._process.terminate()
            self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin, where none runs."""
        with self._lock:
            if self.is_running:
                return
            self._failure, self._before = "", self._bytes()
            how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "errors": "replace"}
            self._process = subprocess.Popen([sys.executable, *self._command], cwd=self._root, **how)
            threading.Thread(target=self._read, args=(self._process,), name="download", daemon=True).start()

    def line(self) -> str:
        """How far it is, or how it ended, in one sentence; "" before the first."""
        if self._process is None:
            return ""
        if self.is_running:
            return f"Downloading: {max(self._bytes() - self._before, 0) / MEGABYTE:.0f} MB so far. It goes on when this page is closed."
        missing = [place for place in weights_places(self._root) if not place.is_there]
        if not missing:
            return "All files are there: start the app again, and the model can be chosen."
        return f"{self._failure or 'The download ended early.'} Press the button again, or put the files there yourself."

    def _read(self, process: "subprocess.Popen[str]") -> None:
        for line in process.stdout:
            if any(word in line for word in FAILURES):
                sentence = line.strip()
                self._failure = sentence[:1].upper() + sentence[1:].rstrip(".") + "."
        process.wait()

    def _bytes(self) -> int:
        """Of all weight files, unfinished ones too."""
        total = 0
        for file in (self._root / CHECKPOINTS).rglob("*"):
            try:
                total += file.stat().st_size if file.is_file() else 0
            except FileNotFoundError:  # took its place meanwhile
                continue
        return total
