"""The manifest of a pipeline: a SQLite file with one row for each clip at each step, written as the work goes on and readable meanwhile.

A result counts when its row is committed. The rows of one clip's outcome and the mark that the step is through with it are one
transaction, so a run that is killed at any moment loses the clips in work and nothing else.
"""

import contextlib
import json
import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from latentsync.errors import OutputError, first_line
from preprocess.plan import RAW, Step
from preprocess.stage import Clip, Fact, Facts, Kept, Rejected

MANIFEST_NAME = "manifest.sqlite"  # in the output folder
COLUMNS = ("duration", "frames", "face_size", "offset", "confidence", "hyperiqa")  # facts with a column of their own
_COLUMNS_SQL = ", ".join(f'"{name}"' for name in COLUMNS)


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
    clip: Clip


@dataclass(frozen=True)
class Places:
    """The two folders that the paths of a manifest count from."""

    input: Path
    output: Path

    def of(self, path: str, made: bool) -> Path:
        """Absolute path of a row: files that the pipeline made lie below the output, the others below the input folder."""
        return (self.output if made else self.input) / path


class Manifest:
    """The rows of one output folder; one process writes, any number may read.

    Args:
        connection: to the opened file.
        places: where its paths count from.
    """

    def __init__(self, connection: sqlite3.Connection, places: Places) -> None:
        self.connection, self.places = connection, places
        self.connection.row_factory = sqlite3.Row

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
            rows = [(step.name, k, step.stage.folder, json.dumps(dict(step.stage.settings))) for k, step in enumerate(steps, 1)]
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
                _insert(connection, (None, file.source, RAW, file.source, file.source, 0), file.refused or {}, 0.0, file.stamp, run)
            for file in other:
                connection.execute("UPDATE clips SET digest = ? WHERE id = ?", (file.stamp, known[file.source]["id"]))
        return [known[file.source]["id"] for file in other]

    def count_raw(self) -> int:
        """Files of the input folder that were found so far."""
        return int(self.connection.execute("SELECT count(*) FROM clips WHERE parent IS NULL").fetchone()[0])

    def count_waiting(self, step: str) -> int:
        """Clips that `step` kept and that the step behind it has not worked on yet."""
        return int(self.connection.execute("SELECT count(*) FROM clips WHERE step = ? AND kept AND NOT done", (step,)).fetchone()[0])

    def waiting(self, step: str, count: int, leave: Collection[int], first: int = -1) -> list[Waiting]:
        """Up to `count` clips that `step` kept and the step behind it has to work on, oldest first.

        Args:
            step: whose clips.
            count: how many.
            leave: rows that are in hand already.
            first: of raw files: only these many that were found first; -1 for all.
        """
        raw = "AND id <= (SELECT max(id) FROM (SELECT id FROM clips WHERE parent IS NULL ORDER BY id LIMIT :first))" if step == RAW else ""
        rows = self.connection.execute(
            f"SELECT * FROM clips WHERE step = :step AND kept AND NOT done {raw} ORDER BY id LIMIT :count",
            {"step": step, "first": first, "count": count + len(leave)},
        )
        return [Waiting(row["id"], self.clip(row)) for row in rows if row["id"] not in leave][:count]

    def clip(self, row: sqlite3.Row) -> Clip:
        """A row as the clip it stands for."""
        return Clip(self.places.of(row["path"], row["made"]), row["source"], row["name"], json.loads(row["facts"]))

    def record(self, waiting: Waiting, step: Step, outcome: Sequence[Kept | Rejected], seconds: float, run: int) -> None:
        """Write what a step made of a clip: all of it, or nothing where this is interrupted."""
        clip, share = waiting.clip, seconds / len(outcome)
        with self.writing() as connection:
            for result in outcome:
                facts = {**clip.facts, **result.facts}
                if isinstance(result, Kept):
                    made = result.path != clip.path
                    name = result.path.relative_to(step.folder).as_posix() if made else clip.name
                    where = (name, result.path.relative_to(self.places.output if made else self.places.input).as_posix(), int(made))
                    verdict: Rejected | Facts = facts
                else:
                    where, verdict = (clip.name, None, 0), Rejected(result.reason, result.why, facts)
                _insert(connection, (waiting.number, clip.source, step.name, *where), verdict, share, step.digest, run)
            connection.execute("UPDATE clips SET done = 1 WHERE id = ?", (waiting.number,))

    def owner(self, step: Step, path: Path, parent: int) -> int | None:
        """The row of the clip before, where a file is that of another clip than one made of `parent`."""
        text = path.relative_to(self.places.output).as_posix()
        query = "SELECT parent FROM clips WHERE made AND step = ? AND path = ? AND parent != ?"
        row = self.connection.execute(query, (step.name, text, parent)).fetchone()
        return None if row is None else int(row["parent"])

    def has(self, number: int) -> bool:
        """Whether a row is there."""
        return self.connection.execute("SELECT 1 FROM clips WHERE id = ?", (number,)).fetchone() is not None

    def tally(self) -> dict[str, dict[bool, int]]:
        """Step -> kept or not -> rows."""
        found: dict[str, dict[bool, int]] = {}
        for row in self.connection.execute("SELECT step, kept, count(*) AS number FROM clips GROUP BY step, kept"):
            found.setdefault(row["step"], {})[bool(row["kept"])] = row["number"]
        return found

    def step_names(self) -> list[str]:
        """Steps of the newest run, in order."""
        return [row["name"] for row in self.connection.execute("SELECT name FROM steps ORDER BY position")]


def _insert(
    connection: sqlite3.Connection,
    head: tuple[int | None, str, str, str, str | None, int],
    verdict: Rejected | Facts,
    seconds: float,
    digest: str,
    run: int,
) -> None:
    """One row: `head` is parent, source, step, name, path, made; `verdict` the rejection, or the facts of a clip that is kept."""
    rejected = verdict if isinstance(verdict, Rejected) else None
    facts = plain_facts(rejected.facts if rejected else verdict)
    reason, why = (rejected.reason, rejected.why) if rejected else (None, None)
    columns = [value if isinstance(value := facts.get(name), int | float) else None for name in COLUMNS]
    values = (*head, rejected is None, reason, why, json.dumps(facts, ensure_ascii=False), *columns, seconds, digest, run)
    connection.execute(
        f"INSERT INTO clips (parent, source, step, name, path, made, kept, reason, why, facts, {_COLUMNS_SQL}, seconds, digest, run) "
        f"VALUES ({', '.join('?' * len(values))})",
        values,
    )


def plain_facts(facts: Facts) -> dict[str, Fact]:
    """Facts as JSON can hold them: numbers of NumPy become Python's, and what is no number (NaN, infinity) becomes None."""
    plain: dict[str, Fact] = {}
    for name, value in facts.items():
        bare = value.item() if hasattr(value, "item") else value
        plain[name] = None if isinstance(bare, float) and not math.isfinite(bare) else bare
    return plain


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
