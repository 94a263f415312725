"""The file behind a manifest: its tables, and how it is opened to write and to read."""

import logging
import os
import sqlite3
from pathlib import Path

from latentsync.errors import InputError, OutputError, first_line
from preprocess.manifest import COLUMNS, MANIFEST_NAME, Manifest, Places

logger = logging.getLogger("preprocess.pipeline")

_FORMAT = "1"
_NEEDS_WRITING = ("unable to open database file", "attempt to write a readonly database")  # SQLITE_CANTOPEN, SQLITE_READONLY
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, ending TEXT, settings TEXT NOT NULL,
    seconds REAL, works INTEGER, raw_hours REAL, cpu_idle REAL
);
CREATE TABLE IF NOT EXISTS steps (name TEXT PRIMARY KEY, position INTEGER NOT NULL, folder TEXT NOT NULL, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS clips (
    id INTEGER PRIMARY KEY, parent INTEGER, source TEXT NOT NULL, step TEXT NOT NULL, name TEXT NOT NULL, path TEXT, made INTEGER NOT NULL,
    kept INTEGER NOT NULL, reason TEXT, why TEXT, facts TEXT NOT NULL, {", ".join(f'"{name}" REAL' for name in COLUMNS)},
    seconds REAL NOT NULL, digest TEXT NOT NULL, run INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS clips_raw ON clips (source) WHERE parent IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS clips_path ON clips (step, path) WHERE made;
CREATE INDEX IF NOT EXISTS clips_waiting ON clips (step, id) WHERE kept AND NOT done;
CREATE INDEX IF NOT EXISTS clips_step ON clips (step, kept, reason);
CREATE INDEX IF NOT EXISTS clips_parent ON clips (parent);
"""


def open_manifest(places: Places) -> Manifest:
    """Open the manifest of an output folder to write; a new one where there is none.

    Raises:
        InputError: it belongs to another input folder, or is no manifest.
        OutputError: it cannot be written.
    """
    path = places.output / MANIFEST_NAME
    connection = _connect(path, f"{path.as_uri()}?mode=rwc")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        with connection:
            for key, value in (("format", _FORMAT), ("input", _relative(places))):
                connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)", (key, value))
    except sqlite3.OperationalError as error:
        connection.close()
        raise OutputError(f"cannot write {path}: {first_line(error)}") from None
    except sqlite3.DatabaseError as error:
        connection.close()
        raise InputError(f"{path} is no manifest of this pipeline ({first_line(error)}): give another --output_dir") from None
    about = _about(connection, path)
    if about["input"] != _relative(places):
        connection.close()
        known = (places.output / about["input"]).resolve()
        raise InputError(f"{places.output} holds the clips of {known}, not of {places.input}: give each input its own --output_dir")
    return Manifest(connection, places)


def read_manifest(path: Path) -> Manifest:
    """Open a manifest to read, whether or not a run is writing it, also where nothing can be written. Raises InputError."""
    path = Path(path).resolve()
    path = path / MANIFEST_NAME if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the {MANIFEST_NAME} in the output folder of a pipeline")
    connection = _connect(path, f"{path.as_uri()}?mode=ro")
    if _needs_writing(connection):
        connection.close()
        connection = _connect(path, f"{path.as_uri()}?mode=ro&immutable=1")
        _tell_what_is_hidden(connection, path)
    about = _about(connection, path)
    return Manifest(connection, Places((path.parent / about["input"]).resolve(), path.parent))


def _connect(path: Path, uri: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(uri, uri=True, timeout=30)
    except sqlite3.OperationalError as error:
        raise OutputError(f"cannot open {path}: {first_line(error)}") from None


def _needs_writing(connection: sqlite3.Connection) -> bool:
    """Whether SQLite refuses to read a file because its index of what was written last (-shm) cannot be made beside it."""
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return str(error) in _NEEDS_WRITING
    except sqlite3.DatabaseError:  # no database: `_about` says so
        return False
    return False


def _tell_what_is_hidden(connection: sqlite3.Connection, path: Path) -> None:
    """Warn where a manifest is read without what a run wrote last. Raises InputError where that is everything."""
    log = path.with_name(f"{path.name}-wal")
    if not log.is_file() or not log.stat().st_size:
        return
    cure = f"copy {path.name} and {log.name} to a folder that can be written, and read them there"
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'clips'").fetchone() is None:
        connection.close()
        raise InputError(f"{path} cannot be read: all its rows are still in {log.name}, and nothing can be written beside it: {cure}")
    logger.warning("%s lies where nothing can be written: rows that are still in %s are not seen; to see them %s", path, log.name, cure)


def _about(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    try:
        about = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    except sqlite3.DatabaseError as error:
        connection.close()
        raise InputError(f"{path} is no manifest of this pipeline ({first_line(error)}): name another file") from None
    if about.get("format") != _FORMAT:
        connection.close()
        raise InputError(f"{path} was written by another version of this pipeline: give another --output_dir")
    return about


def _relative(places: Places) -> str:
    """The input folder as seen from the output folder, so that both can move together."""
    return Path(os.path.relpath(places.input, places.output)).as_posix()
