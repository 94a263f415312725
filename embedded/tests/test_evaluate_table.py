"""The table of the evaluation on rendered people, by measures that are known."""

import numpy as np
import pytest

from embedded.evaluate import (
    HEADER,
    PERCENT,
    VIDEOS,
    Aim,
    PairMeasures,
    SilenceMeasures,
    SyncMeasures,
    TableRow,
    VideoMeasures,
    make_rows,
)
from eval.estimates import mean, share
from eval.metrics.sync import PairTally, SyncReading


def test_aims() -> None:
    assert Aim(">=", 0.9).met(mean([0.9])) and not Aim(">=", 0.9).met(mean([0.8]))
    assert Aim("<=", 0.9).met(mean([0.9])) and not Aim("<", 0.9).met(mean([0.9]))
    assert Aim("about", 0.5).met(share([True, False] * 9)) and not Aim("about", 0.5).met(share([True] * 18))
    assert Aim("<", 0.9).met(None) is None and Aim("about", 0.5).met(mean([0.5])) is None


def test_the_table() -> None:
    rows = [
        TableRow("first", share([True] * 20), share([True] * 10 + [False] * 10), aim=Aim(">=", 0.95), control=Aim("<", 0.2), unit=PERCENT),
        TableRow("second", mean([1.5]), None, mean([1.25]), Aim("<=", 1.2)),
        TableRow("third", None, aim=Aim("<=", 1.2)),
    ]
    control = "50 % (29.9 % to 70.1 %); must be < 20 %: **no**"
    assert rows[0].cells() == ("first", ">= 95 %", "100 % (83.9 % to 100 %)", "yes", control, "-", "20")
    assert rows[1].cells() == ("second", "<= 1.2", "1.5", "**no**", "-", "1.25", "1")
    assert rows[2].cells() == ("third", "<= 1.2", *"-----") and len(HEADER) == 7
    assert (rows[0].met, rows[0].control_met) == (True, False)


def video(old: int, new: int, confidence: float, second: bool, lmd: float) -> VideoMeasures:
    """A video whose offsets, confidence and distances are known; lips open from 0.01 to 0.05."""
    sync = SyncMeasures(SyncReading(old, 0.3, (0.0,)), SyncReading(new, confidence, (0.0,)))
    opening = np.linspace(0.01, 0.05, 101).tolist()
    return VideoMeasures(sync, sync if second else None, opening, 1 - lmd, lmd, 2 * lmd, 3.0, 30.0, 0.001 + lmd / 100, 1.0)


def pairs(second: bool) -> list[PairMeasures]:
    """Four clips, one of which is generated a frame late."""
    found = []
    for number in range(4):
        videos = video(5, int(number == 0), 0.36, second, 0.02), video(0, 7, 0.08, second, 0.1), video(5, 0, 0.4, second, 0.0)
        tally = PairTally(40, 38, 20)
        measured = dict(zip(VIDEOS, videos, strict=True))
        found.append(PairMeasures(f"{number}", 101, 1.0, tally, tally if second else None, [0.01], 0.1, 0.005, measured))
    return found


def test_rows_say_what_was_measured() -> None:
    silence = [SilenceMeasures("0", [0.01, 0.0136], [0.03, 0.03])]
    rows = {row.name: row for row in make_rows(pairs(True), silence, "features")}
    values = {
        name: [None if part is None else round(part.value, 4) for part in (row.measured, row.source, row.reference)]
        for name, row in rows.items()
    }
    assert values["accuracy of the SyncNet on renders of unseen people and voices"] == [0.95, None, None]
    assert values["... of the SyncNet with shuffled labels (control)"] == [0.5, None, None]
    assert values["SyncNet of the training: offset 0 to the old sound"] == [0, 1, 0]
    assert values["SyncNet of the training: offset 0 to the new sound"] == [0.75, 0, 1]
    assert values["lip opening against the known one, Pearson r within a clip"] == [0.98, 0.9, 1]
    assert values["second SyncNet: offset 0"] == [0.75, 0, 1]
    assert values["second SyncNet: offset of one frame at most"] == [1, 0, 1]
    assert values["second SyncNet: confidence, share of the reference's"] == [0.9, 0.2, None]
    assert values["LMD of the mouth, share of the source's"] == [0.2, None, 0]
    assert values["features: share of the source's"] == [0.2, None, 0]
    assert values["jitter of the mouth's landmarks, share of the reference's"] == [1.2, 2, None]
    silent = [values[name] for name in values if name.startswith("silence")]
    assert silent == [[pytest.approx(0.05), pytest.approx(0.5556, abs=1e-3), None]]  # of a range of 0.036 above 0.01
    assert [row.met for row in rows.values() if row.name.startswith("second SyncNet: offset")] == [False, True]
    assert rows["second SyncNet: confidence, share of the reference's"].control_met is True


def test_rows_without_a_second_syncnet_and_without_silence_stay_empty() -> None:
    rows = make_rows(pairs(False), [], "features")
    empty = [row.name for row in rows if row.measured is None]
    assert len(empty) == 7 and all("second SyncNet" in name or "silence" in name for name in empty)
