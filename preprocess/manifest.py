"""The manifest: a SQLite file with a row for each clip at each step; which results a later run keeps and which it makes again."""

import contextlib
import json
import logging
import math
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from latentsync.errors import InputError, OutputError, first_line
from preprocess.step import RAW, ClipFile, Fact, Facts, Kept, Rejected, Step

logger = logging.getLogger("preprocess.pipeline")
MANIFEST_NAME = "manifest.sqlite"  # in the output folder
FAILED = "failed"  # the step broke down, whatever the clip: always tried again by the next run
CRASHED, TIMED_OUT = "crashed", "timed out"  # tried again on request
NOT_FINAL = frozenset({FAILED, CRASHED, TIMED_OUT})  # rejections that say little about the clip
COLUMNS = ("duration", "frames")  # facts with a column of their own in every manifest; the steps add theirs
_FORMAT = "1"
_AT_ONCE = 500  # rows that are held in memory
_ROW = (  # columns of `clips` besides the facts that have one of their own
    *("id", "parent", "source", "step", "name", "path", "made", "kept", "reason", "why"),
    *("facts", "seconds", "digest", "run", "done"),
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, ending TEXT, settings TEXT NOT NULL,
    seconds REAL, works INTEGER, raw_hours REAL, cpu_idle REAL
);
CREATE TABLE IF NOT EXISTS steps (name TEXT PRIMARY KEY, position INTEGER NOT NULL, folder TEXT NOT NULL, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS clips (
    id INTEGER PRIMARY KEY, parent INTEGER, source TEXT NOT NULL, step TEXT NOT NULL, name TEXT NOT NULL, path TEXT, made INTEGER NOT NULL,
    kept INTEGER NOT NULL, reason TEXT, why TEXT, facts TEXT NOT NULL, seconds REAL NOT NULL, digest TEXT NOT NULL, run INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS clips_raw ON clips (source) WHERE parent IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS clips_path ON clips (step, path) WHERE made;
CREATE INDEX IF NOT EXISTS clips_waiting ON clips (step, id) WHERE kept AND NOT done;
CREATE INDEX IF NOT EXISTS clips_step ON clips (step, kept, reason);
CREATE INDEX IF NOT EXISTS clips_parent ON clips (parent);
"""
_BELOW = (  # the rows that were made of one
    "WITH RECURSIVE below (id) AS (SELECT id FROM clips WHERE parent = ? UNION ALL "
    "SELECT clips.id FROM clips JOIN below ON clips.parent = below.id)"
)


@dataclass(frozen=True)
class RawFile:
    """A file of the input folder, as the scan found it."""

    source: str  # relative to the input folder, with /
    stamp: str  # size and time: tells it from what it was before
    refused: Rejected | None = None  # why it cannot go in


def open_manifest(raw: Path, output: Path, columns: Iterable[str]) -> "Manifest":
    """Open or make the manifest of an output folder, with all `columns`. Raises InputError: it is another's; OutputError: the disk."""
    path, relative = output / MANIFEST_NAME, Path(os.path.relpath(raw, output)).as_posix()
    connection = _connect(path, "mode=rwc")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        with connection:
            known = {row["name"] for row in connection.execute("PRAGMA table_info (clips)")}
            for name in dict.fromkeys(name for name in (*COLUMNS, *columns) if name not in known):
                connection.execute(f'ALTER TABLE clips ADD COLUMN "{name}" REAL')
                value, kind = (f"json_{what}(facts, '$.\"{name}\"')" for what in ("extract", "type"))
                connection.execute(f"UPDATE clips SET \"{name}\" = {value} WHERE {kind} IN ('integer', 'real')")
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", [("format", _FORMAT), ("input", relative)])
    except sqlite3.OperationalError as error:
        raise OutputError(f"cannot write {path}: {first_line(error)}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is no manifest of this pipeline ({first_line(error)}): give another --output_dir") from None
    if (other := _input_of(connection, path)) != relative:
        raise InputError(f"{output} holds the clips of {(output / other).resolve()}, not of {raw}: give each input its own --output_dir")
    return Manifest(connection, raw, output)


def read_manifest(path: Path) -> "Manifest":
    """Open a manifest to read, whether or not a run is writing it, also where nothing can be written. Raises InputError."""
    path = Path(path).resolve()
    path = path / MANIFEST_NAME if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the {MANIFEST_NAME} in the output folder of a pipeline")
    connection = _connect(path, "mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # SQLite cannot put its index of what was written last (-shm) beside it
        connection = _connect(path, "mode=ro&immutable=1")
        log = path.with_name(f"{path.name}-wal")
        if log.is_file() and log.stat().st_size:
            cure = f"copy {path.name} and {log.name} to a folder that can be written, and read them there"
            logger.warning("%s is read-only: rows that are still in %s are not seen; to see them %s", path, log.name, cure)
    except sqlite3.DatabaseError:  # `_input_of` says what it is
        pass
    return Manifest(connection, (path.parent / _input_of(connection, path)).resolve(), path.parent)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=30)
    except sqlite3.OperationalError as error:
        raise OutputError(f"cannot open {path}: {first_line(error)}") from None
    connection.row_factory = sqlite3.Row
    return connection


def _input_of(connection: sqlite3.Connection, path: Path) -> str:
    """The input folder as seen from the output folder, so that both can move together. Raises InputError."""
    try:
        about = dict(map(tuple, connection.execute("SELECT key, value FROM meta")))
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is no manifest of this pipeline ({first_line(error)}): name another file") from None
    if about.get("format") != _FORMAT:
        raise InputError(f"{path} was written by another version of this pipeline: give another --output_dir")
    return about["input"]


class Manifest(contextlib.AbstractContextManager):
    """The rows of one output folder; one process writes, any number may read. `raw` is the input folder."""

    def __init__(self, connection: sqlite3.Connection, raw: Path, output: Path) -> None:
        self.connection, self.raw, self.output = connection, raw, output
        names = [row["name"] for row in connection.execute("PRAGMA table_info (clips)")]
        self.columns = [name for name in names if name not in _ROW]  # facts that have a column of their own

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises OutputError where the disk refuses it; nothing of it is there then."""
        try:
            with self.connection:
                yield self.connection
        except sqlite3.OperationalError as error:
            raise OutputError(f"cannot write {self.output / MANIFEST_NAME}: {first_line(error)}; free some space") from None

    def path_of(self, row: sqlite3.Row) -> Path:
        """Absolute path of a row: files that the pipeline made lie below the output, the others below the input folder."""
        return (self.output if row["made"] else self.raw) / row["path"]

    def one(self, query: str, *values: object) -> sqlite3.Row | None:
        """The first row of a query; None where there is none."""
        return self.connection.execute(query, values).fetchone()

    def begin_run(self, settings: Mapping[str, Any], steps: Sequence[Step]) -> int:
        with self.writing() as connection:
            connection.execute("DELETE FROM steps")
            rows = [(step.name, k, step.folder_name, json.dumps(dict(step.settings))) for k, step in enumerate(steps, 1)]
            connection.executemany("INSERT INTO steps (name, position, folder, settings) VALUES (?, ?, ?, ?)", rows)
            cursor = connection.execute("INSERT INTO runs (started, settings) VALUES (?, ?)", (_now(), json.dumps(dict(settings))))
            return int(cursor.lastrowid or 0)

    def end_run(self, run: int, ending: str, **numbers: float | None) -> None:
        """Note how a run ended, with some numbers about it: seconds, works, raw_hours, cpu_idle."""
        values = ", ".join(f"{name} = :{name}" for name in ("ended", "ending", *numbers))
        with self.writing() as connection:
            connection.execute("UPDATE runs SET ending = 'died' WHERE ending IS NULL AND id != ?", (run,))
            connection.execute(f"UPDATE runs SET {values} WHERE id = :run", {"ended": _now(), "ending": ending, "run": run, **numbers})

    def died(self) -> bool:
        """Whether a run before was killed and nobody has cleaned up after it."""
        return self.one("SELECT 1 FROM runs WHERE ending IS NULL") is not None

    def add_raw(self, files: Sequence[RawFile], run: int) -> list[int]:
        """Add files of the input folder; returns the rows of those that are known and have another content now (and its stamp)."""
        changed = []
        with self.writing() as connection:
            for file in files:
                known = self.one("SELECT id, digest FROM clips WHERE parent IS NULL AND source = ?", file.source)
                if known is None:
                    row = {"source": file.source, "step": RAW, "name": file.source, "path": file.source, "made": 0}
                    self._insert(row, file.refused or Kept(Path()), {}, 0.0, file.stamp, run)
                elif known["digest"] != file.stamp:
                    connection.execute("UPDATE clips SET digest = ? WHERE id = ?", (file.stamp, known["id"]))
                    changed.append(known["id"])
        return changed

    def count_raw(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM clips WHERE parent IS NULL").fetchone()[0])

    def last_raw(self, limit: int) -> int | None:
        """The row of the last of the raw files that were found first, `limit` of them; None where there is none."""
        query = "SELECT max(id) FROM (SELECT id FROM clips WHERE parent IS NULL ORDER BY id LIMIT ?)"
        return self.connection.execute(query, (limit,)).fetchone()[0]

    def count_waiting(self, step: str, most: int) -> int:
        """Clips that `step` kept and that the step behind it has not worked on yet, counted up to `most`."""
        query = "SELECT count(*) FROM (SELECT 1 FROM clips WHERE step = ? AND kept AND NOT done LIMIT ?)"
        return int(self.connection.execute(query, (step, most)).fetchone()[0])

    def next_waiting(self, step: str, running: Collection[int], last: int | None = None) -> tuple[int, ClipFile] | None:
        """Row and file of the oldest clip that `step` kept and the step behind it has to work on, up to the row `last`."""
        bound = "" if last is None else f"AND id <= {last}"
        query = f"SELECT * FROM clips WHERE step = ? AND kept AND NOT done {bound} ORDER BY id LIMIT ?"
        for row in self.connection.execute(query, (step, len(running) + 1)).fetchall():
            if row["id"] not in running:
                return row["id"], ClipFile(self.path_of(row), row["source"], row["name"], json.loads(row["facts"]))
        return None

    def record(self, number: int, clip: ClipFile, step: Step, outcome: Sequence[Kept | Rejected], seconds: float, run: int) -> None:
        """Write the outcome of a step for the clip of a row: all of it, or nothing where this is interrupted."""
        with self.writing() as connection:
            for result in outcome:
                row = {"parent": number, "source": clip.source, "step": step.name, "name": clip.name, "made": 0}
                if isinstance(result, Kept) and result.path != clip.path:
                    row |= {"name": result.path.relative_to(step.folder).as_posix(), "made": 1}
                if isinstance(result, Kept):
                    row["path"] = result.path.relative_to(self.output if row["made"] else self.raw).as_posix()
                self._insert(row, result, clip.facts, seconds / len(outcome), step.digest, run)
            connection.execute("UPDATE clips SET done = 1 WHERE id = ?", (number,))

    def _insert(self, row: dict[str, Any], result: Kept | Rejected, before: Facts, seconds: float, digest: str, run: int) -> None:
        """Add a row; its facts are those `before` and those of the result."""
        facts = plain_facts({**before, **result.facts})
        row |= {"kept": isinstance(result, Kept), "facts": json.dumps(facts, ensure_ascii=False)}
        row |= {"seconds": seconds, "digest": digest, "run": run}
        if isinstance(result, Rejected):
            row |= {"reason": result.reason, "why": result.why}
        row |= {name: value for name in self.columns if isinstance(value := facts.get(name), int | float)}
        names = ", ".join(f'"{name}"' for name in row)
        self.connection.execute(f"INSERT INTO clips ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])

    def owner(self, step: Step, path: Path, parent: int) -> int | None:
        """The row of the clip before, where a file is that of another clip than one made of `parent`."""
        text = path.relative_to(self.output).as_posix()
        row = self.one("SELECT parent FROM clips WHERE made AND step = ? AND path = ? AND parent != ?", step.name, text, parent)
        return None if row is None else int(row["parent"])

    def step_names(self) -> list[str]:
        return [row["name"] for row in self.connection.execute("SELECT name FROM steps ORDER BY position")]


def plain_facts(facts: Facts) -> dict[str, Fact]:
    """Facts as JSON can hold them: numbers of NumPy become Python's, and what is no number (NaN, infinity) becomes None."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in facts.items()}
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in plain.items()}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def drop_stale(manifest: Manifest, steps: Sequence[Step]) -> None:
    """Remove all results of other settings than those of `steps`, and log what changed."""
    valid = [f"{step.name}\0{step.digest}" for step in steps]
    stale = f"parent IS NOT NULL AND step || char(0) || digest NOT IN ({', '.join('?' * len(valid))})"
    counts = manifest.connection.execute(f"SELECT step, count(*) FROM clips WHERE {stale} GROUP BY step", valid).fetchall()
    known = {row["name"]: json.loads(row["settings"]) for row in manifest.connection.execute("SELECT name, settings FROM steps")}
    for step in steps if counts else ():
        before, now = known.pop(step.name, None), dict(step.settings)
        if before is None:
            logger.info("%s was not part of the run before: it works now, and the steps behind it work again", step.name)
        elif before != now:
            names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
            changes = ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)
            logger.info("%s has other settings than before (%s): it works again, and so do the steps behind it", step.name, changes)
    for name in known if counts else ():
        logger.info("%s is no longer part of the run: the steps behind it work again", name)
    for row in _rows(manifest, stale, valid):
        reopen(manifest, row["parent"])
    for name, count in counts:
        logger.info("%s: %d results of the settings before were removed", name, count)


def reopen_lost(manifest: Manifest, steps: Sequence[Step]) -> None:
    """Make again files that are in the rows and not on the disk: clips that still have work before them, and those of the last step."""
    lost = 0
    for row in _rows(manifest, "made AND kept AND (NOT done OR step = ?)", [steps[-1].name]):
        if not manifest.path_of(row).is_file():
            reopen(manifest, row["parent"])
            lost += 1
    if lost:
        logger.info("%d files of the run before are gone: they are made again", lost)


def reopen_rejected(manifest: Manifest, reasons: Sequence[str]) -> None:
    """Let clips that were rejected for one of the `reasons` be worked on again."""
    for row in _rows(manifest, f"NOT kept AND parent IS NOT NULL AND reason IN ({', '.join('?' * len(reasons))})", reasons):
        reopen(manifest, row["parent"])


def reopen(manifest: Manifest, number: int) -> None:
    """Let the next step work again on the clip of a row, or the nearest before it whose file is there; what was made of it is removed."""
    row = manifest.one("SELECT * FROM clips WHERE id = ?", number)
    while row is not None and row["made"] and not manifest.path_of(row).is_file():
        row = manifest.one("SELECT * FROM clips WHERE id = ?", row["parent"])
    if row is None:  # removed with a clip before it
        return
    files = manifest.connection.execute(f"{_BELOW} SELECT path, step FROM clips WHERE made AND id IN below", (row["id"],)).fetchall()
    _unlink(manifest, files)
    with manifest.writing() as connection:
        connection.execute(f"{_BELOW} DELETE FROM clips WHERE id IN below", (row["id"],))
        connection.execute("UPDATE clips SET done = 0 WHERE id = ?", (row["id"],))


def remove_file(manifest: Manifest, number: int) -> None:
    """Remove the file of a clip whose work is done, where the pipeline made it; its row stays."""
    rows = manifest.connection.execute("SELECT path, step FROM clips WHERE id = ? AND made AND done", (number,)).fetchall()
    _unlink(manifest, rows)


def _rows(manifest: Manifest, condition: str, values: Sequence[str]) -> Iterator[sqlite3.Row]:
    """Rows that fulfil a condition, read a few hundred at a time: work on one may remove others."""
    query = f"SELECT id, parent, path, made FROM clips WHERE {condition} AND id > ? ORDER BY id LIMIT {_AT_ONCE}"
    after = 0
    while rows := manifest.connection.execute(query, (*values, after)).fetchall():
        yield from rows
        after = rows[-1]["id"]


def _unlink(manifest: Manifest, rows: Iterable[sqlite3.Row]) -> None:
    """Remove the files of rows (path, step) that the pipeline made, and folders that become empty by it. Raises OutputError."""
    for row in rows:
        path = manifest.output / row["path"]
        assert row["step"] != RAW and not path.is_relative_to(manifest.raw), "a raw file was about to be removed"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {path} ({(error.strerror or str(error)).lower()}): remove it, then run this again") from None
        with contextlib.suppress(OSError):  # not empty
            for folder in path.parents[: max(len(Path(row["path"]).parts) - 2, 0)]:  # below the step's own folder, deepest first
                folder.rmdir()
