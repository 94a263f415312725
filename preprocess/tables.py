"""What a manifest says in numbers: kept and rejected for each step and reason, hours in and out, and the spread of each fact."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from preprocess.manifest import COLUMNS, Manifest
from preprocess.plan import RAW

_HOUR = 3600.0
BINS = 24


@dataclass(frozen=True)
class StepCount:
    """One step in numbers."""

    name: str
    clips_in: int
    kept: int
    reasons: dict[str, int]  # most frequent first
    hours_in: float
    hours_out: float
    seconds: float  # of work

    @property
    def rejected(self) -> int:
        """Clips, or parts of clips, that ended here."""
        return sum(self.reasons.values())

    @property
    def speed(self) -> float:
        """Hours of video that one worker does in an hour."""
        return self.hours_in * _HOUR / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Histogram:
    """How a fact is spread over the clips that ended at a step or came through."""

    name: str
    low: float
    width: float  # of a bin
    kept: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)


def count_steps(manifest: Manifest) -> list[StepCount]:
    """The steps of the newest run, the search for raw files before them."""
    counts = []
    before: str | None = None
    for name in (RAW, *manifest.step_names()):
        counts.append(_count_step(manifest, name, before))
        before = name
    return counts


def _count_step(manifest: Manifest, name: str, before: str | None) -> StepCount:
    ask = manifest.connection.execute
    row = ask("SELECT count(*) AS kept, total(duration) AS seconds FROM clips WHERE step = ? AND kept", (name,)).fetchone()
    reasons = ask("SELECT reason, count(*) FROM clips WHERE step = ? AND NOT kept GROUP BY reason ORDER BY 2 DESC, 1", (name,)).fetchall()
    work, inside = ask("SELECT total(seconds), total(duration) FROM clips WHERE step = ?", (name,)).fetchone()
    clips_in = row["kept"] + sum(number for _, number in reasons)
    if before is not None:
        done = "SELECT count(*), total(duration) FROM clips WHERE step = ? AND kept AND done"
        clips_in, came = ask(done, (before,)).fetchone()
        inside = inside if before == RAW else came  # how long a raw file is, the first step finds out
    return StepCount(name, clips_in, row["kept"], dict(map(tuple, reasons)), inside / _HOUR, row["seconds"] / _HOUR, work)


def as_text(counts: Sequence[StepCount]) -> str:
    """The numbers as a table for the terminal."""
    head = ("step", "clips in", "kept", "rejected", "hours in", "hours out", "work h", "video h / work h")
    lines: list[tuple[str, ...]] = [head]
    for count in counts:
        numbers = (str(count.clips_in), str(count.kept), str(count.rejected), f"{count.hours_in:.2f}", f"{count.hours_out:.2f}")
        lines.append((count.name, *numbers, f"{count.seconds / _HOUR:.2f}", f"{count.speed:.2f}" if count.seconds else ""))
        lines += [(f"  {reason}", "", "", str(number), "", "", "", "") for reason, number in count.reasons.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Iterable[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(line, widths, strict=True))]
    return "  ".join(cells).rstrip()


def histograms(manifest: Manifest) -> list[Histogram]:
    """Of each fact that has a column and more than one value."""
    names = manifest.step_names()
    last = names[-1] if names else RAW
    found = []
    for column in COLUMNS:
        ends = f'parent IS NOT NULL AND (NOT kept OR step = ?) AND "{column}" IS NOT NULL'
        row = manifest.connection.execute(f'SELECT min("{column}"), max("{column}") FROM clips WHERE {ends}', (last,)).fetchone()
        low, high = row[0], row[1]
        if low is None or low == high:
            continue
        whole = column in ("offset", "frames") and high - low < BINS
        width = 1.0 if whole else (high - low) / BINS
        bins = int(high - low) + 1 if whole else BINS
        counts = [[0] * bins, [0] * bins]
        query = f'SELECT kept, min(CAST(("{column}" - ?) / ? AS INTEGER), ?) AS bin, count(*) FROM clips WHERE {ends} GROUP BY kept, bin'
        for kept, place, number in manifest.connection.execute(query, (low, width, bins - 1, last)):
            counts[bool(kept)][place] = number
        found.append(Histogram(column, low, width, counts[1], counts[0]))
    return found
