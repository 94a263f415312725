"""Files as such: walk the media files of a tree; write a result whole or not at all; keep others out of a folder."""

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from latentsync.errors import InputError, OutputError

VIDEO_EXTENSIONS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ts", ".flv", ".wmv", ".gif"})
AUDIO_EXTENSIONS = frozenset({".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".wma", ".aiff"})
_ADDRESS = re.compile(r"(?:^|/)([A-Za-z][A-Za-z0-9+.-]+):/+(.+)")  # "https://...", of which a Path keeps one slash
STAGING_PREFIX = ".latentsync-"  # hidden, and known to `walk_media`, which passes such files over


def walk_media(root: str | Path, extensions: Iterable[str] = VIDEO_EXTENSIONS) -> Iterator[Path]:
    """Files below `root` with one of the `extensions` (any case), sorted by path; hidden files and folders are left out.

    Raises InputError when `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the clips")
    wanted = {extension.lower() for extension in extensions}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in wanted]
        yield from (Path(folder) / name for name in sorted(names))


@contextlib.contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Yield a fresh hidden file beside `path`, with its extension; it becomes `path` when the block ends well, and is removed when not.

    Missing folders are made. A file that is there already is replaced only at the end; a link is followed. Raises OutputError
    when the folder cannot be written.
    """
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    temporary = target.parent / f"{STAGING_PREFIX}{secrets.token_hex(6)}{target.suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {target.parent}: {_why(error)}") from None
    try:
        yield temporary
        try:
            temporary.replace(target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {_why(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8). Raises OutputError."""
    with staged(path) as temporary:
        try:
            temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {_why(error)}") from None


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all. Raises OutputError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_record(path: str | Path) -> dict[str, Any]:
    """What a JSON file of named values says; nothing where it is missing, damaged or only half written."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_readable(path: Path) -> None:
    """Raise InputError, with the reason, unless `path` is a file with at least one byte that may be read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder: give a file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file: give a video or an audio file")
        if status.st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): copy or download it again")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        refuse_address(path)
        raise InputError(f"{path} does not exist: check the path") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: give yourself permission to read it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path!s} cannot be opened: {error}") from None


def refuse_address(path: Path) -> None:
    """Raise InputError for a path that is meant as an address or as a standard stream: files are read and written alone."""
    address = _ADDRESS.search(str(path))
    if address is not None and not Path(str(path)[: address.end(1) + 1]).is_dir():
        scheme, rest = address.groups()
        if scheme.lower() == "file":
            raise InputError(f"{scheme}:///{rest} is an address: give the path alone, /{rest}")
        raise InputError(f"{scheme}://{rest} is an address, only local files are read and written: download or upload it yourself")
    if path.name == "-":
        raise InputError("- is no file, standard input and output are not supported: name a file")


def check_target(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse, before any work, a result that could not be written: a folder, a folder without permission, one of the `inputs`.

    Leaves nothing behind. Raises InputError for what the user must name differently, OutputError for what the disk refuses.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: name the file to write")
        if not path.exists():
            refuse_address(path)
        elif not path.is_file():
            raise InputError(f"{path} is not a regular file: name another file to write")
        for source in inputs:
            if path.exists() and Path(source).exists() and path.samefile(source):
                raise InputError(f"{path} is one of the inputs: inputs are never written over, name another file")
        _check_folder(path.parent)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written: {_why(error)}") from None


def _check_folder(folder: Path) -> None:
    """Try to make and remove a file in `folder`, or ask for permission on the nearest folder above it that is there."""
    if folder.exists():
        if not folder.is_dir():
            raise InputError(f"{folder} is a file: the result cannot be written into it, name another folder")
        probe = folder / f"{STAGING_PREFIX}{secrets.token_hex(6)}"
        try:
            with probe.open("xb"):
                pass
            probe.unlink()
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {_why(error)}") from None
        return
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not above.is_dir():
        raise InputError(f"{above} is a file: the folder {folder} cannot be made in it, name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"cannot make the folder {folder}: {above} may not be written")


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


class FolderLock:
    """Keeps a second work of the same kind out of a folder; a context manager. The lock ends with the process, however it ends.

    Args:
        folder: made where it is missing.
        name: of the lock's file in it.
        busy: what is said after the folder's name where another one holds it: "is in use by another ...: ...".
    """

    def __init__(self, folder: Path, name: str, busy: str) -> None:
        self.path, self.busy = folder / name, busy
        self._file: TextIO | None = None

    def __enter__(self) -> "FolderLock":
        """Raises InputError where another holds the folder, OutputError where it cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w")
        except OSError as error:
            raise OutputError(f"cannot write into {self.path.parent}: {_why(error)}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{self.path.parent} {self.busy}") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Let others in."""
        if self._file is not None:
            self._file.close()
