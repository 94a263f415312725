"""What a measurement of rendered heads leaves behind: all numbers as JSON, the table as Markdown, a contact sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.heads.measures import PairMeasures, SilenceMeasures
from eval.heads.table import Row, heads_speech_range, make_rows, to_markdown
from eval.results.plain import plain
from latentsync.media.files import write_json, write_text


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    settings: Mapping[str, Any]
    weights: Mapping[str, str]  # SHA-256 of each file that took part
    pairs: Sequence[PairMeasures]
    silence: Sequence[SilenceMeasures]
    failed: Mapping[str, str]  # clip -> why it could not be measured
    appearance: str  # which distance of how mouths look was used

    def rows(self) -> list[Row]:
        """The table."""
        return make_rows(self.pairs, self.silence, self.appearance)

    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        asked, steps, scale = len(self.pairs) + len(self.failed), self.settings["inference_steps"], self.settings["guidance_scale"]
        unpainted = [pair.name for pair in self.pairs if pair.generated_share < 1]
        notes = [
            f"{len(self.pairs)} of {asked} clips measured, {sum(pair.frames for pair in self.pairs)} frames; {steps} steps, "
            f"guidance {scale:g}, faces of {self.settings['resolution']} px.",
            "In brackets: 95 % intervals, Wilson's for offsets, the bootstrap over clips otherwise. The value itself meets an aim or not.",
            "Offset and confidence: the sound is moved by -15 to 15 frames; the mean cosine of all windows says where it fits best (0 = in "
            "place) and by how much that exceeds the median of the 31 places.",
        ]
        if unpainted:
            notes.append(f"In {len(unpainted)} clips some frames were left as they are, such as {unpainted[0]}.")
        if self.failed:
            first = next(iter(self.failed))
            notes.append(f"{len(self.failed)} clips could not be measured; the first was {first}: {self.failed[first]}")
        return [line for note in notes for line in (note, "")][:-1]

    def write(self, folder: Path) -> str:
        """Write results.json and results.md; the table. Raises OutputError."""
        rows = self.rows()
        table = to_markdown(rows, self.notes())
        content = {
            "settings": self.settings,
            "weights": self.weights,
            "appearance": self.appearance,
            "rows": [{**plain(row), "met": row.met, "control_met": row.control_met} for row in rows],
            "speech_range": plain(heads_speech_range(self.pairs)),
            "failed": self.failed,
            "clips": plain(self.pairs),
            "silence": plain(self.silence),
        }
        write_json(folder / "results.json", content)
        write_text(folder / "results.md", table)
        return table
