"""A contact sheet of measured heads: source, generated and true render below each other at moments along a clip."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from eval.heads.measures import PairMeasures, Trio
from latentsync.errors import OutputError
from latentsync.media.files import staged

MOMENTS = 8
CLIPS = 4
ROWS = ("source", "generated", "true")
_TITLE = 24  # rows of pixels
_INK, _PAPER = (20, 20, 20), 245
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def chosen_clips(pairs: Sequence[PairMeasures]) -> dict[int, str]:
    """Which clips are shown, by index, and why: the worst and the best by LMD, and two between them at a third and at two thirds."""
    order = sorted(range(len(pairs)), key=lambda index: -pairs[index].videos.generated.lmd)
    places = np.linspace(0, len(order) - 1, min(CLIPS, len(order))).round().astype(int).tolist()
    words = {0: "worst", len(order) - 1: "best"} if len(order) > 1 else {0: "the only one"}
    return {order[place]: words.get(place, f"place {place + 1} of {len(order)} from the worst") for place in places}


def clip_block(faces: Trio[Tensor], title: str) -> np.ndarray:
    """One clip: a title above three rows of MOMENTS faces; uint8 h w 3."""
    moments = np.linspace(0, len(faces.true) - 1, MOMENTS).round().astype(int)
    rows = [np.hstack(list(getattr(faces, name)[moments].numpy())) for name in ROWS]
    head = np.full((_TITLE, rows[0].shape[1], 3), _PAPER, np.uint8)
    cv2.putText(head, title, (6, 16), _FONT, _SIZE, _INK, 1, cv2.LINE_AA)
    return np.vstack([head, *rows])


def block_title(pair: PairMeasures, why: str) -> str:
    """What stands above a clip."""
    video = pair.videos.generated
    against = video.lmd / pair.videos.source.lmd if pair.videos.source.lmd else 0.0
    return f"{pair.name} ({why}): LMD {100 * video.lmd:.2f} % of the face, {100 * against:.0f} % of the source's; rows: {', '.join(ROWS)}"


def write_sheet(path: Path, blocks: Sequence[np.ndarray]) -> None:
    """Write blocks (uint8 h w 3, RGB, of one width) below each other as a picture. Raises OutputError."""
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(np.vstack(list(blocks)), cv2.COLOR_RGB2BGR))[1]
    with staged(path) as temporary:
        try:
            temporary.write_bytes(encoded.tobytes())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
