"""A varied copy of each clip of real people, in other light, moved, blurred: `python -m embedded.augment --help`."""

import argparse
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from embedded.autoencoder import colour_change
from latentsync.cli import run_command
from latentsync.errors import InputError
from latentsync.media.files import walk_media
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import AudioTrack, VideoWriter

CRF = 10  # quality of the copies, x264's scale
SIZE, TURN, SHIFT = 0.03, 1.2, 0.012  # standard deviations: scale, degrees, shares of the side; about how alignment errs
STRETCH = 0.05  # standard deviation of the height over the width: faces differ in how far the mouth lies below the eyes
MOUTH = (0.5, 0.75)  # where that is measured, shares of the side
EYES = 0.4  # row that stays where alignment has brought it, share of the side
BLURRED, NOISY, SMALL = 0.4, 0.4, 0.3  # shares of the copies
Change = Callable[[np.ndarray], np.ndarray]


def draw_change(rng: np.random.Generator, side: int) -> Change:
    """What is done to all frames (uint8 side side 3) of a clip: mirrored, moved, stretched, recoloured; some blurred, noisy or coarser."""
    scale, turn = 1 + SIZE * rng.standard_normal(), TURN * rng.standard_normal()
    move = cv2.getRotationMatrix2D((MOUTH[0] * side, MOUTH[1] * side), turn, scale)
    move[:, 2] += SHIFT * side * rng.standard_normal(2)
    stretch = 1 + STRETCH * rng.standard_normal()
    move[1] = stretch * move[1] + [0, 0, (1 - stretch) * EYES * side]
    colours = np.column_stack(colour_change(rng))
    blur, noise, coarse = rng.uniform(0.3, 1.0), rng.uniform(0, 5), rng.uniform(0.5, 0.9)
    is_blurred, is_noisy, is_coarse = (rng.random() < share for share in (BLURRED, NOISY, SMALL))

    def change(face: np.ndarray) -> np.ndarray:
        face = cv2.warpAffine(face[:, ::-1], move, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        values = cv2.transform(face.astype(np.float32), colours)
        if is_coarse:
            values = cv2.resize(values, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_AREA)
            values = cv2.resize(values, (side, side), interpolation=cv2.INTER_CUBIC)
        if is_blurred:
            values = cv2.GaussianBlur(values, (0, 0), blur)
        if is_noisy:
            values = values + rng.standard_normal(values.shape, np.float32) * np.float32(noise)
        return values.clip(0, 255).round().astype(np.uint8)

    return change


def vary_clip(source: Path, target: Path, seed: int) -> None:
    """Write a varied copy of a clip of aligned faces, with its sound. Raises InputError, OutputError."""
    reader, sound = VideoReader(source), probe(source).require_audio()
    change = draw_change(np.random.default_rng(seed), reader.width)
    with VideoWriter(target, reader.width, reader.height, reader.fps, audio=AudioTrack(source, sound.duration), crf=CRF) as writer:
        for frame in reader.frames():
            writer.write(change(frame))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(prog="python -m embedded.augment", description="Write a varied copy of each clip of aligned faces.")
    parser.add_argument("--clips", type=Path, required=True, help="folder of clips of aligned faces, with sound")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the copies; those that are there are left alone")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bar")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_args(arguments)


def work(parsed: argparse.Namespace) -> None:
    """Vary what has no copy yet."""
    clips = list(walk_media(parsed.clips, {".mp4"}))
    if not clips:
        raise InputError(f"{parsed.clips} holds no .mp4 clip: name the folder that the data processing pipeline wrote.")
    for clip in tqdm(clips, unit="clip", desc="Varying clips", disable=parsed.quiet):
        name = clip.relative_to(parsed.clips)
        if not (target := parsed.output_dir / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            vary_clip(clip, target, zlib.crc32(str(name).encode()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(
        lambda: work(parsed), "latentsync", "the same command goes on with the next clip.", quiet=parsed.quiet, verbose=parsed.verbose
    )


if __name__ == "__main__":
    sys.exit(main())
