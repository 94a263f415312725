"""Render talking heads: `python -m embedded.talking_heads clips | aligned | demo | sheet --help`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from embedded.talking_heads.speech.voices import SPLITS, Voice
from latentsync.cli import CODES, run_command
from latentsync.errors import InputError
from latentsync.media.files import staged

# Identity and scene of a person, what is said in the video, and what the recording says
DEMOS = (
    (
        *(559, 105, Voice("flite", "rms")),
        "Every morning I walk along the river before the shops open. The water is calm and nobody is in a hurry.",
        Voice("flite", "rms", rate=1.05, resample=1.04),
        "We moved the meeting to five in the afternoon. Please bring the blue folder, and a warm jacket.",
    ),
    (
        *(527, 239, Voice("espeak", "f2")),
        "My brother builds small boats from old furniture. Some of them even float for a while.",
        Voice("espeak", "Andrea", rate=0.95),
        "Do you remember the bakery on the corner? They have opened a second one by the bridge.",
    ),
    (
        *(216, 313, Voice("espeak", "m3", "en-us")),
        "The museum is free on Mondays, so we looked at every picture twice.",
        Voice("espeak", "m3", "de"),
        "Der Zug nach Bremen fährt heute von Gleis sieben ab. Bitte nehmen Sie Ihr Gepäck mit.",
    ),
)
_DEMO_SIZE = 640  # pixels a side

logger = logging.getLogger("embedded.talking_heads")

_ASSETS = Path(__file__).parents[2] / "assets"
_EPILOG = f"Files of the same settings that are there are left alone: the same command goes on where it stopped. {CODES}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(prog="python -m embedded.talking_heads", description="Render talking heads with known labels.")
    commands = parser.add_subparsers(dest="kind", required=True)
    clips = _collection(commands, "clips", "videos of heads before a background, with sound and labels", seconds=4.0)
    clips.add_argument("--size", type=int, default=512, help="pixels a side (default %(default)s)")
    clips.add_argument("--crf", type=int, default=16, help="quality of the video, lower is better (default %(default)s)")
    aligned = _collection(commands, "aligned", "training clips: videos of aligned faces, with sound and labels", seconds=3.0)
    aligned.add_argument("--resolution", dest="size", type=int, default=256, help="pixels a side of a face (default %(default)s)")
    for pictures in (clips, aligned):
        pictures.add_argument(
            "--pairs", dest="is_pair", action="store_true", help="each clip a second time (*_other.mp4): same motion and light, other words"
        )
    clips.add_argument("--clean_sound", dest="is_clean", action="store_true", help="no rooms, noise and microphones")
    demo = commands.add_parser("demo", help="the three demo inputs", description="Make the demo inputs of assets/ anew.")
    demo.add_argument("--output_dir", type=Path, default=_ASSETS, help="folder of the three pairs (default: assets); files are replaced")
    sheet = commands.add_parser(
        "sheet", help="a contact sheet of people", description="A picture of many people, every second one speaking."
    )
    sheet.add_argument("output", type=Path, help="the picture, .png or .jpg; replaced if it is there")
    sheet.add_argument("--people", type=int, default=24, help="how many (default %(default)s)")
    sheet.add_argument("--seed", type=int, default=0, help="identity of the first (default %(default)s)")
    sheet.add_argument("--size", type=int, default=192, help="pixels of each (default %(default)s)")
    for command in commands.choices.values():
        command.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bar")
    return parser.parse_args(arguments)


def _collection(commands: argparse._SubParsersAction, kind: str, what: str, seconds: float) -> argparse.ArgumentParser:
    parser = commands.add_parser(kind, help=what, description=f"Make {what}.", epilog=_EPILOG)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the files; created if it is missing")
    parser.add_argument("--number", type=int, default=16, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to share the work among machines (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the collection: each seed is other people saying other things")
    parser.add_argument("--split", choices=SPLITS, default="train", help="no two splits share a person, a voice or a sentence")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of each (default %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each processor)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says. Raises InputError for numbers out of range."""
    if arguments.kind == "demo":
        return write_demos(arguments.output_dir)
    if arguments.kind == "sheet":
        return write_sheet(arguments.output, arguments.people, arguments.seed, arguments.size)
    given = {name: getattr(arguments, name) for name in ("number", "first", "seed", "workers")}
    if min(given.values()) < 0 or not arguments.number:
        raise InputError(f"{given}: ask for at least one, and give numbers from 0 on")
    if not 0.2 <= arguments.seconds <= 600:
        raise InputError(f"--seconds {arguments.seconds:g}: give 0.2 to 600")
    size = getattr(arguments, "size", 256)
    if not 32 <= size <= 4096 or size % 2 or (arguments.kind == "aligned" and size % 8):
        raise InputError(f"{size} pixels: give an even number from 32 to 4096, for aligned faces a multiple of 8")
    if not 0 <= getattr(arguments, "crf", 0) <= 51:
        raise InputError(f"--crf {arguments.crf}: give a number from 0 to 51")
    from embedded.talking_heads.batch import HeadCollection, write_all

    known = HeadCollection.__dataclass_fields__
    collection = HeadCollection(**{name: value for name, value in vars(arguments).items() if name in known})
    indices = range(arguments.first, arguments.first + arguments.number)
    written = write_all(collection, arguments.output_dir, indices, arguments.workers or os.cpu_count() or 1, not arguments.quiet)
    logger.info("%d of %d written in %s, the others were there", written, len(indices), arguments.output_dir)


def write_demos(folder: Path) -> None:
    """Write demo1_video.mp4, demo1_audio.wav and two more pairs: people of the test split, and recordings of other words."""
    from embedded.talking_heads.clip import RenderedScene, SpokenClip, write_video, write_wave
    from embedded.talking_heads.speech.synthesis import speak
    from embedded.talking_heads.speech.voices import ClipPlan

    for number, (identity, seed, voice, text, other_voice, other_text) in enumerate(tqdm(DEMOS, unit="demo", disable=None), start=1):
        speech, other = speak(text, voice), speak(other_text, other_voice)
        clip = SpokenClip(ClipPlan("test", identity, voice, text, seed), speech, speech.duration - 0.02, is_clean=True)
        scene = RenderedScene(identity, seed, _DEMO_SIZE, _DEMO_SIZE)
        frames = (scene.frame(pose, index) for index, pose in enumerate(clip.poses))
        write_video(folder / f"demo{number}_video.mp4", frames, _DEMO_SIZE, clip.samples, crf=23)
        with staged(folder / f"demo{number}_audio.wav") as temporary:
            write_wave(temporary, other.samples)


def write_sheet(output: Path, people: int, seed: int, size: int) -> None:
    """Write a picture of people in rows of eight, every second one with an open mouth."""
    from embedded.talking_heads.clip import RenderedScene
    from embedded.talking_heads.expression import MouthShape
    from embedded.talking_heads.motion import Pose

    if people < 1 or seed < 0 or size < 32 or output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{output}: name a .png or .jpg file, and give at least 1 person, seed 0 and 32 pixels")
    mouths = (MouthShape(), MouthShape(jaw=0.3, spread=0.2, upper_lip=0.2, lower_lip=0.3))
    sheet = np.zeros((-(-people // 8) * size, min(people, 8) * size, 3), np.uint8)
    for number in tqdm(range(people), unit="person", disable=None):
        picture = RenderedScene(seed + number, seed + number, size, size).frame(Pose(mouth=mouths[number % 2]), 0).picture
        row, column = number // 8 * size, number % 8 * size
        sheet[row : row + size, column : column + size] = picture
    with staged(output) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    interrupted = "the files in work were not written, those before them are whole."
    return run_command(lambda: run(parsed), "embedded", interrupted, quiet=parsed.quiet)


if __name__ == "__main__":
    sys.exit(main())
