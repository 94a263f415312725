"""Who owns which files: one folder a session, gone when the session ends."""

import logging
import secrets
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """What belongs to one open page or one client.

    Attributes:
        folder: of its jobs; nobody can guess its name.
        uploads: files that were uploaded in it.
        seen: when it last did something, in seconds of the monotonic clock.
    """

    folder: Path
    uploads: set[Path] = field(default_factory=set)
    seen: float = field(default_factory=monotonic)


class Sessions:
    """The sessions of an app.

    Args:
        root: folder of all files of the app, uploads included; nothing outside of it is ever removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def job_folder(self, key: str) -> Path:
        """A name for a fresh folder of a session, which is not made yet."""
        return self._session(key).folder / secrets.token_hex(8)

    def claim(self, key: str, path: Path | str | None) -> None:
        """Note that an uploaded file belongs to a session; files that are not under the root are not noted."""
        if path is None:
            return
        file = Path(path).resolve()
        if self._root in file.parents:
            self._session(key).uploads.add(file)

    def end(self, key: str) -> None:
        """Remove everything of a session. A file that another session uploaded too stays until that one ends."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                return
            kept = set().union(*(other.uploads for other in self._sessions.values()))
        for file in session.uploads - kept:
            file.unlink(missing_ok=True)
            if file.parent != self._root and file.parent.is_dir() and not any(file.parent.iterdir()):
                file.parent.rmdir()
        shutil.rmtree(session.folder, ignore_errors=True)

    def stale(self, seconds: float) -> list[str]:
        """Sessions that did nothing for so long."""
        with self._lock:
            return [key for key, session in self._sessions.items() if monotonic() - session.seen > seconds]

    def tidy(self, seconds: float) -> None:
        """Remove what uploads left behind that were broken off so long ago: files that lie in the root itself."""
        for file in self._root.iterdir():
            if file.is_file() and time() - file.stat().st_mtime > seconds:
                file.unlink(missing_ok=True)

    def __len__(self) -> int:
        """Open sessions that own something."""
        return len(self._sessions)

    def _session(self, key: str) -> Session:
        with self._lock:
            session = self._sessions.setdefault(key, Session(self._root / f"session-{secrets.token_hex(16)}"))
            session.seen = monotonic()
            return session
