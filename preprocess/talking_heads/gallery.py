"""Contact sheets to judge the heads by: many people at once, or a sentence frame by frame.

`python -m preprocess.talking_heads.gallery sheet.png --identities 64`
`python -m preprocess.talking_heads.gallery strip.png --clip CLIP.mp4`
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from latentsync.command import run_command
from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.files import check_target, staged
from latentsync.media.video import VideoSource
from preprocess.talking_heads.anatomy.expression import Mouth
from preprocess.talking_heads.head import Pose
from preprocess.talking_heads.performance import poses
from preprocess.talking_heads.scene.motion import motion
from preprocess.talking_heads.speech.viseme_table import CHANNELS
from preprocess.talking_heads.studio import Studio

_SPEAKING = Mouth(jaw=0.3, spread=0.2, upper_lip=0.2, lower_lip=0.3)


def portraits(seeds: Iterable[int], size: int) -> Iterator[np.ndarray]:
    """One picture (uint8 size size 3) of each identity in a scene of its own; every second one is speaking."""
    for number, seed in enumerate(seeds):
        studio = Studio(seed, seed, size, size)
        still = np.zeros((20, len(CHANNELS)), np.float32)
        pose: Pose = poses(still, motion(seed, len(still)))[-1]
        pose = replace(pose, blink=(0.0, 0.0), mouth=_SPEAKING if number % 2 else pose.mouth)
        yield studio.frame(pose, 0).picture


def tiled(pictures: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size side by side in rows of `columns`; the last row is filled up with black."""
    found = list(pictures)
    found += [np.zeros_like(found[0])] * (-len(found) % columns)
    rows = [np.hstack(found[start : start + columns]) for start in range(0, len(found), columns)]
    return np.vstack(rows)


def film_strip(clip: Path, start: float, count: int, step: int, size: int) -> list[np.ndarray]:
    """Every `step`-th frame of a clip from `start` seconds on, scaled to `size` pixels of height."""
    first = round(start * VIDEO_FPS)
    frames = []
    for frame in itertools.islice(VideoSource(clip).frames(first, first + count * step), 0, None, step):
        width = round(size * frame.shape[1] / frame.shape[0])
        frames.append(cv2.resize(frame, (width, size), interpolation=cv2.INTER_AREA))
    if not frames:
        raise InputError(f"{clip} has no frame at {start:g} s: choose an earlier --start")
    return frames


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m preprocess.talking_heads.gallery", description="Contact sheets to judge the heads by.")
    parser.add_argument("output", type=Path, help="the picture: .png or .jpg; replaced if it is there")
    parser.add_argument("--identities", type=int, default=64, help="how many people (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="identity of the first; the others follow by one (default %(default)s)")
    parser.add_argument("--clip", type=Path, help="instead of people: the frames of this clip")
    parser.add_argument("--start", type=float, default=0.0, help="second of the clip to start at")
    parser.add_argument("--step", type=int, default=1, help="show every n-th frame (default %(default)s)")
    parser.add_argument("--count", type=int, default=48, help="frames of a strip (default %(default)s)")
    parser.add_argument("--size", type=int, default=192, help="pixels of each picture (default %(default)s)")
    parser.add_argument("--columns", type=int, default=8, help="pictures in a row (default %(default)s)")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Make the sheet."""
    least = {"identities": 1, "seed": 0, "start": 0, "step": 1, "count": 1, "size": 32, "columns": 1}
    for name, low in least.items():
        if getattr(arguments, name) < low:
            raise InputError(f"--{name} {getattr(arguments, name):g}: give at least {low}")
    inputs = [arguments.clip] if arguments.clip else []
    check_target(arguments.output, inputs)
    if arguments.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{arguments.output}: name a .png or .jpg file")
    if arguments.clip is not None:
        pictures = film_strip(arguments.clip, arguments.start, arguments.count, arguments.step, arguments.size)
    else:
        seeds = range(arguments.seed, arguments.seed + arguments.identities)
        pictures = list(tqdm(portraits(seeds, arguments.size), total=len(seeds), unit="person", disable=None))
    sheet = cv2.cvtColor(tiled(pictures, arguments.columns), cv2.COLOR_RGB2BGR)
    with staged(arguments.output) as temporary:
        cv2.imwrite(str(temporary), sheet)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "no picture was written.")


if __name__ == "__main__":
    sys.exit(main())
