"""Files as such: walk media files, read lists and tables that people wrote, write a result whole or not at all, lock a folder."""

import codecs
import contextlib
import csv
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from latentsync.errors import InputError, OutputError

VIDEO_EXTENSIONS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ts", ".flv", ".wmv", ".gif"})
AUDIO_EXTENSIONS = frozenset({".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".wma", ".aiff"})
_ADDRESS = re.compile(r"(?:^|/)([A-Za-z][A-Za-z0-9+.-]+):/+(.+)")  # "https://...", of which a Path keeps one slash
STAGING_PREFIX = ".latentsync-"  # hidden, and known to `walk_media`, which passes such files over
_STAGED = re.compile(rf"{re.escape(STAGING_PREFIX)}(?:([0-9a-f]{{8}})-)?[0-9a-f]{{12}}(?:\..*)?")  # machine, which may be missing; chance
_ABANDONED = 24 * 3600  # seconds without a change after which a staging file whose lock tells nothing counts as left behind
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def walk_media(root: str | Path, extensions: Iterable[str] = VIDEO_EXTENSIONS) -> Iterator[Path]:
    """Files below a folder with one of the `extensions` (any case), sorted by path, without hidden files and folders. Raises InputError."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the clips")
    wanted = {extension.lower() for extension in extensions}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in wanted]
        yield from (Path(folder) / name for name in sorted(names))


def read_text(path: str | Path) -> str:
    """A text file in UTF-8 (other bytes become surrogates, see `written_path`) or marked UTF-16, with Unix line ends. Raises InputError."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        refuse_address(Path(path))
        raise InputError(f"{path} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({_why(error)}): check the path") from None
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16", "replace") if is_wide else content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise InputError(f"{path} is no text file: give one that is saved as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_paths(path: str | Path) -> list[tuple[int, Path]]:
    """Line numbers and paths of a text file that names one file a line, relative to its folder; # begins a comment. Raises InputError."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, written_path(Path(path).parent, line)) for number, line in lines if not _is_comment(line)]


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Rows of a table with a header (in lower case) and commas, semicolons or tabs, as spreadsheets save it. Raises InputError."""
    lines = [line for line in read_text(path).split("\n") if not _is_comment(line)]
    named = re.fullmatch("sep=(.)", lines[0].strip(" "), re.IGNORECASE) if lines else None  # what Excel itself reads
    lines = lines[1:] if named else lines
    separator = named[1] if named else max(",;\t", key=lines[0].count) if lines else ","
    try:
        header, *rows = csv.reader(lines, delimiter=separator, skipinitialspace=True) if lines else [[]]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read ({error}): give a table with a header and commas between its cells") from None
    names = [name.strip().lower() for name in header]
    for number, row in enumerate(rows, start=1):
        if any(cell.strip() for cell in row[len(names) :]):
            raise InputError(f"{path}, row {number}: there are more cells than the header has names")
    cells = ({name: cell for name, cell in zip(names, row, strict=False) if name and cell.strip()} for row in rows)
    return [row for row in cells if row]


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def written_path(folder: Path, name: str) -> Path:
    """A path as somebody wrote it, relative to `folder`; also without blanks and quotes, with backslashes, in cp1252, accents apart."""
    bare = name.strip()
    plain = bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'" else bare
    is_utf8 = not any("\udc80" <= letter <= "\udcff" for letter in plain)
    decoded = plain if is_utf8 else plain.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    usual = decoded.replace("\\", "/")
    readings = dict.fromkeys((name, bare, plain, plain.replace("\\", "/"), decoded, usual))
    readings |= dict.fromkeys(unicodedata.normalize(form, usual) for form in ("NFC", "NFD"))
    return next((folder / reading for reading in readings if os.path.exists(folder / reading)), folder / usual)  # noqa: PTH110 - never raises


@contextlib.contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """A hidden file beside `path` that becomes `path` if the block ends well; folders are made, links followed. Raises OutputError."""
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent.absolute())
        temporary, lock = _open_staging(target.parent, target.suffix)
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
        lock.close()


def _open_staging(folder: Path, suffix: str = "") -> tuple[Path, BinaryIO]:
    """A new hidden file, and the lock on it that says that a living process owns it. Raises OSError."""
    while True:
        path = folder / f"{STAGING_PREFIX}{_machine()}-{secrets.token_hex(6)}{suffix}"
        file = path.open("xb")
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return path, file
        file.close()  # another process took it for abandoned before it was locked


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that goes with the block; first, those of this user and `prefix` go that killed processes left behind."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # somebody else's, gone meanwhile, or locked, which says that a living process owns it
            if not left.is_symlink() and left.stat().st_uid == os.getuid():
                with _locked_folder(left):
                    shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{prefix}"))
    with _locked_folder(fresh):
        folder = fresh.rename(fresh.with_name(fresh.name[1:]))  # not under its name before it is locked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """The lock on a folder for the length of a block. Raises OSError: another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@functools.lru_cache(maxsize=4096)  # a folder may hold a million results: it is listed once, not for each of them
def remove_abandoned(folder: Path) -> None:
    """Remove staging files that no process owns: unlocked ones of this machine, others after a day; once a process for each folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if entry.name.startswith(STAGING_PREFIX)]:
            match = _STAGED.fullmatch(name)
            if match is None:
                continue
            with contextlib.suppress(OSError), (folder / name).open("r+b") as file:
                is_old = time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    is_ours = match[1] == _machine()
                except BlockingIOError:
                    continue
                except OSError:  # no locks here
                    is_ours = False
                if is_ours or is_old:
                    (folder / name).unlink()


@functools.cache
def _machine() -> str:
    """What tells this machine, since it was started, from others that share a disk: eight hexadecimal digits."""
    try:
        name = _BOOT_ID.read_bytes()
    except OSError:
        name = os.uname().nodename.encode()
    return hashlib.blake2b(name, digest_size=4).hexdigest()


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
    """Refuse, before any work, a result that cannot be written. Raises InputError: its name (one of the `inputs`); OutputError: a disk."""
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
        folder = next(parent for parent in (path.parent, *path.parent.absolute().parents) if parent.exists())
        if not folder.is_dir():
            raise InputError(f"{folder} is a file: the result cannot be written into it, name another folder")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written: {_why(error)}") from None
    try:
        trial, lock = _open_staging(folder)
        trial.unlink()
        lock.close()
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {_why(error)}") from None


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


@contextlib.contextmanager
def folder_lock(folder: Path, name: str, busy: str, seconds: float = 0.0) -> Iterator[None]:
    """Keep a second work out of a folder, which is made, by a file `name`; waits up to `seconds` for it.

    Raises InputError (`busy`: what is said of the folder), OutputError.
    """
    lock = FileLock(folder / name, timeout=seconds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder} {busy}") from None
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {_why(error)}") from None
    try:
        yield
    finally:
        lock.release()
