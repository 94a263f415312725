"""What was found of each case, kept so that the same evaluation goes on where it stopped and measures only what is new."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from eval.measures.measure import Numbers
from eval.results.plain import plain
from eval.runs.measuring import CaseReadings, Reading
from latentsync.errors import OutputError
from latentsync.media.files import read_record, staged, write_json


class CaseRecord:
    """The record of one case: cases/NAME.json, and features/MEASURE/NAME.npz.

    Args:
        folder: of all results.
        name: of the case.
        inputs: the checksums of its files; a record of other files counts as none.
    """

    def __init__(self, folder: Path, name: str, inputs: Mapping[str, str]) -> None:
        self.path, self.folder, self.name = folder / "cases" / f"{name}.json", folder, name
        known = read_record(self.path)
        if known.get("inputs") != dict(inputs):
            known = {}
        self.inputs = dict(inputs)
        self.warnings: list[str] = known.get("warnings", [])
        self._numbers: dict[str, dict[str, Any]] = known.get("measures", {})
        self._features: dict[str, dict[str, Any]] = known.get("sets", {})

    def has(self, name: str, signature: Mapping[str, Any]) -> bool:
        """Whether a measure need not be asked again, or, for one that reads features, its features are there."""
        entry = self._numbers.get(name) or self._features.get(name) or {}
        done = entry.get("signature") == dict(signature) and entry.get("sure", False)
        return done and (name not in self._features or entry["failed"] is not None or self._place(name).is_file())

    def add(self, readings: CaseReadings, signatures: Mapping[str, Mapping[str, Any]], warnings: Sequence[str]) -> None:
        """Keep what was found. Raises OutputError."""
        self.warnings = list(warnings)
        for name, reading in readings.numbers.items():
            self._numbers[name] = {"signature": dict(signatures[name]), **plain(reading), "made": _plain(reading.made)}
            self._numbers[name]["truth"] = _plain(reading.truth)
        for name, reading in readings.features.items():
            failed = reading.failed or reading.truth_failed
            self._features[name] = {"signature": dict(signatures[name]), "failed": failed, "sure": reading.sure}
            if failed is None:
                self._write_features(name, reading)
        write_json(self.path, {"inputs": self.inputs, "warnings": self.warnings, "measures": self._numbers, "sets": self._features})

    def numbers(self, name: str) -> Reading[Numbers]:
        """What a measure found."""
        entry = self._numbers[name]
        return Reading(**{field.name: entry[field.name] for field in fields(Reading)})

    def features(self, name: str) -> Reading[np.ndarray]:
        """What a measure of sets sees. Raises OutputError where the file was damaged."""
        entry = self._features[name]
        if entry["failed"] is not None:
            return Reading(None, None, entry["failed"], entry["failed"], entry["sure"])
        try:
            with np.load(self._place(name)) as arrays:
                return Reading(arrays["made"], arrays["truth"])
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"{self._place(name)} cannot be read ({error}): delete it and run the same command again") from None

    def _write_features(self, name: str, reading: Reading[np.ndarray]) -> None:
        assert reading.made is not None and reading.truth is not None
        with staged(self._place(name)) as temporary:
            try:
                np.savez(temporary, made=reading.made, truth=reading.truth)
            except OSError as error:
                raise OutputError(f"cannot write {self._place(name)}: {error}") from None

    def _place(self, name: str) -> Path:
        return self.folder / "features" / name / f"{self.name}.npz"


def _plain(numbers: Numbers | None) -> dict[str, float | None] | None:
    """Numbers for JSON; what is not finite becomes None."""
    return None if numbers is None else {key: plain(None if value is None else float(value)) for key, value in numbers.items()}
