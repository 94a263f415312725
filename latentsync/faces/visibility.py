"""In which frames of a track the lower face can be seen: hands, microphones and profiles are left as they are."""

import cv2
import numpy as np
import torch
from scipy.ndimage import binary_closing, binary_dilation, binary_opening, distance_transform_edt
from scipy.special import logit

from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.faces.alignment import face_size, fit_similarity
from latentsync.faces.detector import MIN_BROW_DISTANCE
from latentsync.faces.tracking import Track

COVERED = "something covers the lower face, or it is not seen surely"
TURNED = "face turned too far aside"
CELLS = (12, 16)  # columns and rows of the aligned face
CELL = 5  # pixels a side
MIDDLE, LOWER = (slice(5, 9), slice(3, 9)), (slice(9, 15), slice(3, 9))  # rows and columns: nose and cheeks; mouth and chin
REACH = 50  # frames before and after that tell how a face looks when nothing covers it
MIN_CHANGE = 40.0  # grey levels by which cells differ when something covers them
MIN_COVERED = 0.4  # of the lower cells that differ by as much
MIN_LIGHT = 20.0  # grey levels of nose and cheeks: darker faces tell nothing
MIN_LOGIT, MIN_DROP = 2.5, 4.0  # log-odds of the score: hands before a face lower FaceMesh's to this, and under the track's median by that
SURE = 1e-6  # of a score, at either end, beyond which it tells nothing
MIN_RUN, MIN_VISIBLE = 3, 8  # frames that a face is hidden at least, and that it is seen between two such runs
MARGIN = 2  # frames before and after a hidden run that are taken as hidden
FADE = 3  # frames of the cross-fade from the new mouth to the original


def face_colours(picture: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Mean colours uint8 [37 3] of a face in a picture uint8 [h w 3] with anchors [3 2]: nose and cheeks, 36 cells of mouth and chin."""
    columns, rows = CELLS
    size = (columns * CELL, rows * CELL)
    matrix = fit_similarity(torch.from_numpy(anchors)[None], TEMPLATE_RESOLUTION)[0][0].numpy()
    if not np.isfinite(matrix).all():
        return np.zeros((37, 3), np.uint8)
    crop = cv2.warpAffine(picture, matrix * (size[0] / face_size(TEMPLATE_RESOLUTION)[0]), size, borderMode=cv2.BORDER_REPLICATE)
    cells = crop.reshape(rows, CELL, columns, CELL, 3).mean(axis=(1, 3))  # 16 12 3
    return np.concatenate([cells[MIDDLE].mean(axis=(0, 1))[None], cells[LOWER].reshape(-1, 3)]).round().astype(np.uint8)


def has_other_colours(colours: np.ndarray) -> np.ndarray:
    """In which frames the mouth is unlike its median over two seconds before and after; bool [n], of colours uint8 [n 37 3]."""
    usual = np.stack([np.median(colours[max(0, i - REACH) : i + REACH + 1], axis=0) for i in range(len(colours))])
    gain = (colours[:, 0] / np.maximum(usual[:, 0], 1)).mean(axis=1)[:, None, None]
    change = np.abs(colours[:, 1:] / np.maximum(gain, 0.2) - usual[:, 1:]).mean(axis=2)  # n 36
    return (np.quantile(change, 1 - MIN_COVERED, axis=1) > MIN_CHANGE) & (colours[:, 0].mean(axis=1) >= MIN_LIGHT)


def visibility(track: Track, start: int, stop: int) -> tuple[list[str], np.ndarray]:
    """Of each frame of a track in a shot start..stop (half open): why the lower face is not surely seen, "" where it is; and how much of a
    new mouth it shows, float32 [n]: 1, fading to 0 beside frames in which the face is hidden or lost."""
    inside = (track.start > start, track.stop < stop)  # whether the track is lost, before and after, in a shot that goes on
    scores = logit(np.clip(track.scores, SURE, 1 - SURE))
    boxes, anchors = np.stack(track.boxes), np.stack(track.anchors)
    covered = scores < min(MIN_LOGIT, np.median(scores) - MIN_DROP)
    if all(colours is not None for colours in track.colours):
        covered |= has_other_colours(np.stack(track.colours))
    brows = np.linalg.norm(anchors[:, 1] - anchors[:, 0], axis=1) / (boxes[:, 2:] - boxes[:, :2]).mean(axis=1)
    reasons = np.full(len(boxes), "", dtype=object)
    for reason, is_hidden in ((TURNED, brows < MIN_BROW_DISTANCE), (COVERED, covered)):
        reasons[steady(is_hidden, inside)] = reason
    is_seen = np.pad(reasons == "", np.array(inside, int))
    shares = np.ones(len(is_seen)) if is_seen.all() else distance_transform_edt(is_seen) / (FADE + 1)
    return reasons.tolist(), shares.clip(0, 1).astype(np.float32)[inside[0] :][: len(boxes)]


def steady(is_hidden: np.ndarray, inside: tuple[bool, bool]) -> np.ndarray:
    """Runs of at least `MIN_RUN` hidden frames, bool [n], with margins, and without a shorter view than `MIN_VISIBLE` between two.

    `inside`: whether the face is lost, which is as good as hidden, before the first and after the last frame.
    """
    padded = np.pad(is_hidden, MIN_RUN, constant_values=(inside,))
    runs = binary_opening(binary_closing(padded, np.ones(MIN_RUN), border_value=0), np.ones(MIN_RUN)) & padded
    runs = np.pad(runs[MIN_RUN:-MIN_RUN], MIN_VISIBLE)
    return binary_dilation(binary_closing(runs, np.ones(MIN_VISIBLE)), np.ones(2 * MARGIN + 1))[MIN_VISIBLE:-MIN_VISIBLE]
