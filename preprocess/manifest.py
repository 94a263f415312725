"""The manifest: a SQLite file with a row for each clip at each step; what a second run leaves and what it makes again."""

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
_FORMAT = "1"
_NEEDS_WRITING = ("unable to open database file", "attempt to write a readonly database")  # SQLITE_CANTOPEN, SQLITE_READONLY
_AT_ONCE = 500  # rows that are held in memory
_ROW = (  # columns of `clips` besides the facts that have one of their own
    *("id", "parent", "source", "step", "name", "path", "made", "kept", "reason", "why"),
    *("facts", "seconds", "digest", "run", "done"),
)
COLUMNS = ("duration", "frames")  # facts with a column of their own in every manifest; the steps add theirs
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


@dataclass(frozen=True)
class RawFile:
    """A file of the input folder, as the scan found it."""

    source: str  # relative to the input folder, with /
    stamp: str  # size and time: what tells it from what it was before
    refused: Rejected | None = None  # why it cannot go in


@dataclass(frozen=True)
class Waiting:
    """A clip that the next step has not worked on yet."""

    number: int  # of its row
    clip: ClipFile


@dataclass(frozen=True)
class Places:
    """The two folders that the paths of a manifest count from."""

    input: Path
    output: Path

    def of(self, path: str, made: bool) -> Path:
        """Absolute path of a row: files that the pipeline made lie below the output, the others below the input folder."""
        return (self.output if made else self.input) / path


def open_manifest(places: Places, columns: Iterable[str]) -> "Manifest":
    """Open the manifest of an output folder to write; a new one where there is none.

    Args:
        places: the two folders.
        columns: facts that have to have a column of their own; those that an older manifest lacks are added and filled.

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
            known = {row[1] for row in connection.execute("PRAGMA table_info (clips)")}
            for name in dict.fromkeys(name for name in (*COLUMNS, *columns) if name not in known):
                connection.execute(f'ALTER TABLE clips ADD COLUMN "{name}" REAL')
                value, kind = (f"json_{what}(facts, '$.\"{name}\"')" for what in ("extract", "type"))
                connection.execute(f"UPDATE clips SET \"{name}\" = {value} WHERE {kind} IN ('integer', 'real')")
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


def read_manifest(path: Path) -> "Manifest":
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


class Manifest:
    """The rows of one output folder; one process writes, any number may read.

    Args:
        connection: to the opened file.
        places: where its paths count from.
    """

    def __init__(self, connection: sqlite3.Connection, places: Places) -> None:
        self.connection, self.places = connection, places
        self.connection.row_factory = sqlite3.Row
        names = [row["name"] for row in connection.execute("PRAGMA table_info (clips)")]
        self.columns = [name for name in names if name not in _ROW]  # facts that have a column of their own

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises OutputError where the disk refuses it; nothing of it is there then."""
        try:
            with self.connection:
                yield self.connection
        except sqlite3.OperationalError as error:
            raise OutputError(f"cannot write {self.places.output / MANIFEST_NAME}: {first_line(error)}; free some space") from None

    def begin_run(self, settings: Mapping[str, Any], steps: Sequence[Step]) -> int:
        """Note a run and its steps; its number."""
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
        return self.connection.execute("SELECT 1 FROM runs WHERE ending IS NULL").fetchone() is not None

    def add_raw(self, files: Sequence[RawFile], run: int) -> list[int]:
        """Note files of the input folder; returns the rows of those that are known and have another content now (and its stamp)."""
        marks = ", ".join("?" * len(files))
        found = self.connection.execute(
            f"SELECT id, source, digest FROM clips WHERE parent IS NULL AND source IN ({marks})", [file.source for file in files]
        )
        known = {row["source"]: row for row in found}
        fresh = [file for file in files if file.source not in known]
        other = [file for file in files if file.source in known and known[file.source]["digest"] != file.stamp]
        with self.writing() as connection:
            for file in fresh:
                self._insert((None, file.source, RAW, file.source, file.source, 0), file.refused or Kept(Path()), {}, 0.0, file.stamp, run)
            for file in other:
                connection.execute("UPDATE clips SET digest = ? WHERE id = ?", (file.stamp, known[file.source]["id"]))
        return [known[file.source]["id"] for file in other]

    def count_raw(self) -> int:
        """Files of the input folder that were found so far."""
        return int(self.connection.execute("SELECT count(*) FROM clips WHERE parent IS NULL").fetchone()[0])

    def count_waiting(self, step: str) -> int:
        """Clips that `step` kept and that the step behind it has not worked on yet."""
        return int(self.connection.execute("SELECT count(*) FROM clips WHERE step = ? AND kept AND NOT done", (step,)).fetchone()[0])

    def waiting(self, step: str, count: int, leave: Collection[int], limit: int | None = None) -> list[Waiting]:
        """Up to `count` clips that `step` kept and the step behind it has to work on, oldest first.

        Args:
            step: whose clips.
            count: how many.
            leave: rows that are at work already.
            limit: of raw files: only these many that were found first; None for all.
        """
        raw = "AND id <= (SELECT max(id) FROM (SELECT id FROM clips WHERE parent IS NULL ORDER BY id LIMIT :limit))" if step == RAW else ""
        rows = self.connection.execute(
            f"SELECT * FROM clips WHERE step = :step AND kept AND NOT done {raw} ORDER BY id LIMIT :count",
            {"step": step, "limit": -1 if limit is None else limit, "count": count + len(leave)},
        )
        return [Waiting(row["id"], self.clip(row)) for row in rows if row["id"] not in leave][:count]

    def clip(self, row: sqlite3.Row) -> ClipFile:
        """A row as the clip it stands for."""
        return ClipFile(self.places.of(row["path"], row["made"]), row["source"], row["name"], json.loads(row["facts"]))

    def record(self, waiting: Waiting, step: Step, outcome: Sequence[Kept | Rejected], seconds: float, run: int) -> None:
        """Write what a step made of a clip: all of it, or nothing where this is interrupted."""
        clip, share = waiting.clip, seconds / len(outcome)
        with self.writing() as connection:
            for result in outcome:
                name, path, made = clip.name, None, False
                if isinstance(result, Kept):
                    made = result.path != clip.path
                    name = result.path.relative_to(step.folder).as_posix() if made else clip.name
                    path = result.path.relative_to(self.places.output if made else self.places.input).as_posix()
                head = (waiting.number, clip.source, step.name, name, path, int(made))
                self._insert(head, result, clip.facts, share, step.digest, run)
            connection.execute("UPDATE clips SET done = 1 WHERE id = ?", (waiting.number,))

    def _insert(
        self,
        head: tuple[int | None, str, str, str, str | None, int],
        result: Kept | Rejected,
        facts: Facts,
        seconds: float,
        digest: str,
        run: int,
    ) -> None:
        """One row: `head` is parent, source, step, name, path, made; `facts` what was known before."""
        reason, why = (result.reason, result.why) if isinstance(result, Rejected) else (None, None)
        facts = plain_facts({**facts, **result.facts})
        values = dict(zip(("parent", "source", "step", "name", "path", "made"), head, strict=True))
        values |= {"kept": reason is None, "reason": reason, "why": why, "facts": json.dumps(facts, ensure_ascii=False)}
        values |= {"seconds": seconds, "digest": digest, "run": run}
        values |= {name: value for name in self.columns if isinstance(value := facts.get(name), int | float)}
        names = ", ".join(f'"{name}"' for name in values)
        self.connection.execute(f"INSERT INTO clips ({names}) VALUES ({', '.join('?' * len(values))})", [*values.values()])

    def owner(self, step: Step, path: Path, parent: int) -> int | None:
        """The row of the clip before, where a file is that of another clip than one made of `parent`."""
        text = path.relative_to(self.places.output).as_posix()
        query = "SELECT parent FROM clips WHERE made AND step = ? AND path = ? AND parent != ?"
        row = self.connection.execute(query, (step.name, text, parent)).fetchone()
        return None if row is None else int(row["parent"])

    def has(self, number: int) -> bool:
        """Whether a row is there."""
        return self.connection.execute("SELECT 1 FROM clips WHERE id = ?", (number,)).fetchone() is not None

    def step_names(self) -> list[str]:
        """Steps of the newest run, in order."""
        return [row["name"] for row in self.connection.execute("SELECT name FROM steps ORDER BY position")]


def plain_facts(facts: Facts) -> dict[str, Fact]:
    """Facts as JSON can hold them: numbers of NumPy become Python's, and what is no number (NaN, infinity) becomes None."""
    plain: dict[str, Fact] = {}
    for name, value in facts.items():
        bare = value.item() if hasattr(value, "item") else value
        plain[name] = None if isinstance(bare, float) and not math.isfinite(bare) else bare
    return plain


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def drop_stale(manifest: Manifest, steps: Sequence[Step]) -> int:
    """Remove all results of other settings than those of `steps`, and say what changed; how many results that were."""
    known = {row["name"]: json.loads(row["settings"]) for row in manifest.connection.execute("SELECT name, settings FROM steps")}
    valid = [f"{step.name}\0{step.digest}" for step in steps]
    query = (
        "SELECT id, parent, step, path, made FROM clips WHERE parent IS NOT NULL "
        f"AND step || char(0) || digest NOT IN ({', '.join('?' * len(valid))}) LIMIT {_AT_ONCE}"
    )
    total: dict[str, int] = {}
    while rows := manifest.connection.execute(query, valid).fetchall():
        if not total:
            _say_what_changed(known, steps)
        for row in rows:
            total[row["step"]] = total.get(row["step"], 0) + 1
        _unlink(manifest, [(row["path"], row["step"]) for row in rows if row["made"]])
        with manifest.writing() as connection:
            connection.executemany("DELETE FROM clips WHERE id = ?", [(row["id"],) for row in rows])
            connection.executemany("UPDATE clips SET done = 0 WHERE id = ?", [(row["parent"],) for row in rows])
    for name, count in total.items():
        logger.info("%s: %d results of the settings before were removed", name, count)
    return sum(total.values())


def _say_what_changed(known: dict[str, dict[str, Fact]], steps: Sequence[Step]) -> None:
    """One line for each step that is new, gone, or has other settings than in the run before."""
    for step in steps:
        before, now = known.pop(step.name, None), dict(step.settings)
        if before is None:
            logger.info("%s was not part of the run before: it works now, and the steps behind it work again", step.name)
        elif before != now:
            names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
            changes = ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)
            logger.info("%s has other settings than before (%s): it works again, and so do the steps behind it", step.name, changes)
    for name in known:
        logger.info("%s is no longer part of the run: the steps behind it work again", name)


def reopen_lost(manifest: Manifest, steps: Sequence[Step]) -> int:
    """Make again what rows promise and the disk lacks: clips that still have work before them, and those of the last step."""
    last = steps[-1].name
    lost = 0
    for row in _every(manifest, "made AND kept AND (NOT done OR step = ?)", (last,)):
        if not manifest.places.of(row["path"], True).is_file():
            reopen(manifest, row["parent"])
            lost += 1
    if lost:
        logger.info("%d files of the run before are gone: they are made again", lost)
    return lost


def reopen_rejected(manifest: Manifest, reasons: Iterable[str]) -> int:
    """Give clips that were rejected for one of the `reasons` another chance; how many."""
    wanted = list(reasons)
    count = 0
    for row in _every(manifest, f"NOT kept AND parent IS NOT NULL AND reason IN ({', '.join('?' * len(wanted))})", wanted):
        reopen(manifest, row["parent"])
        count += 1
    return count


def reopen(manifest: Manifest, number: int) -> None:
    """Let the next step work again on the clip of a row; where its own file is gone, on the nearest clip before it that is there.

    What was made of it is removed, files and rows.
    """
    row = manifest.connection.execute("SELECT * FROM clips WHERE id = ?", (number,)).fetchone()
    while row is not None and row["made"] and not manifest.places.of(row["path"], True).is_file():
        row = manifest.connection.execute("SELECT * FROM clips WHERE id = ?", (row["parent"],)).fetchone()
    if row is None:  # removed with a clip before it
        return
    below = (
        "WITH RECURSIVE below (id) AS (SELECT id FROM clips WHERE parent = ? UNION ALL "
        "SELECT clips.id FROM clips JOIN below ON clips.parent = below.id) "
    )
    files = manifest.connection.execute(f"{below} SELECT path, step FROM clips WHERE made AND id IN below", (row["id"],)).fetchall()
    _unlink(manifest, [(file["path"], file["step"]) for file in files])
    with manifest.writing() as connection:
        connection.execute(f"{below} DELETE FROM clips WHERE id IN below", (row["id"],))
        connection.execute("UPDATE clips SET done = 0 WHERE id = ?", (row["id"],))


def remove_file(manifest: Manifest, number: int) -> None:
    """Remove the file of a clip whose work is done, where the pipeline made it; its row stays."""
    row = manifest.connection.execute("SELECT path, step FROM clips WHERE id = ? AND made AND done", (number,)).fetchone()
    if row is not None:
        _unlink(manifest, [(row["path"], row["step"])])


def _every(manifest: Manifest, condition: str, values: Sequence[str]) -> Iterator[sqlite3.Row]:
    """Rows that fulfil a condition, in steps of a few hundred: what is done with one may remove others."""
    after = 0
    while True:
        query = f"SELECT id, parent, path FROM clips WHERE {condition} AND id > ? ORDER BY id LIMIT {_AT_ONCE}"
        rows = manifest.connection.execute(query, (*values, after)).fetchall()
        yield from rows
        if not rows:
            return
        after = rows[-1]["id"]


def _unlink(manifest: Manifest, files: Iterable[tuple[str, str]]) -> None:
    """Remove files that the pipeline made (path, step), and folders that become empty by it. Raises OutputError."""
    output, raw = manifest.places.output, manifest.places.input
    for text, step in files:
        path = output / text
        assert step != RAW and not path.is_relative_to(raw), "a raw file was about to be removed"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {path} ({(error.strerror or str(error)).lower()}): remove it, then run this again") from None
        with contextlib.suppress(OSError):  # not empty
            for folder in _folders_between(path, output):
                folder.rmdir()


def _folders_between(path: Path, output: Path) -> list[Path]:
    """Folders of a file below its step's own folder, deepest first."""
    inner = path.relative_to(output).parts[1:-1]
    return [output.joinpath(path.relative_to(output).parts[0], *inner[:count]) for count in range(len(inner), 0, -1)]
