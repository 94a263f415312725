"""Results of files that were measured, kept line by line, so that a second run does only what is left."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentsync.errors import OutputError

KINDS = ("result", "reason")


class KeptResults:
    """Outcomes by file; one of another size, time or way of measuring is none.

    Args:
        path: a text file with one outcome a line; what a kill cut short is passed over.
        settings: everything that decides an outcome beside the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises OutputError where the file is there and cannot be read."""
        self.path, self._settings = path, json.loads(json.dumps(dict(settings)))
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise OutputError(f"cannot read {path} ({type(error).__name__}): delete it, or name another --output_dir") from None
        self._entries = {entry["file"]: entry for entry in map(_parse, lines) if entry is not None}

    def find(self, file: Path) -> dict[str, Any] | None:
        """What was found of a file: {"result": ...} or {"reason": ...}; None where it has to be measured."""
        entry = self._entries.get(str(file.absolute()))
        if entry is None or any(entry.get(key) != value for key, value in self._identity(file).items()):
            return None
        return {kind: entry[kind] for kind in KINDS if kind in entry}

    def add(self, file: Path, outcome: Mapping[str, Any]) -> None:
        """Keep {"result": ...} or {"reason": ...} of a file. Raises OutputError."""
        entry = {**self._identity(file), **outcome}
        self._entries[entry["file"]] = entry
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as kept:
                kept.write("\n" * self._is_cut() + json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {(error.strerror or str(error)).lower()}") from None

    def _is_cut(self) -> bool:
        """Whether the last line has no end."""
        return self.path.is_file() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")

    def _identity(self, file: Path) -> dict[str, Any]:
        try:
            status = file.stat()
            size, time = status.st_size, status.st_mtime_ns
        except OSError:
            size, time = -1, -1
        return {"file": str(file.absolute()), "size": size, "mtime": time, "settings": self._settings}


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "file" in entry and any(kind in entry for kind in KINDS) else None
