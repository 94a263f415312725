"""What a second run leaves, and what it makes again: changed settings, changed raw files, lost results, failures.

A file is removed here only where a row says that the pipeline made it. Files go before their rows: what is interrupted in between is a
row without a file, which `reopen_lost` finds.
"""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from latentsync.errors import OutputError
from preprocess.manifest import Manifest
from preprocess.plan import RAW, Step
from preprocess.stage import Fact

logger = logging.getLogger("preprocess.pipeline")

FAILED = "failed"  # the step broke down, whatever the clip: always tried again by the next run
CRASHED, TIMED_OUT = "crashed", "timed out"  # tried again on request
NOT_FINAL = frozenset({FAILED, CRASHED, TIMED_OUT})  # rejections that say little about the clip
_AT_ONCE = 500  # rows that are held in memory


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
        before, now = known.pop(step.name, None), dict(step.stage.settings)
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
