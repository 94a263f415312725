"""Make the demo inputs: three people of the test split and three recordings of other words.

`python -m preprocess.talking_heads.demo` writes assets/demo1_video.mp4, assets/demo1_audio.wav and two more pairs.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from latentsync.command import run_command
from latentsync.media.files import staged
from preprocess.talking_heads.clip import Clip, ClipSettings, write_wave
from preprocess.talking_heads.speech.splits import ClipPlan, test_identities
from preprocess.talking_heads.speech.synthesis import speak
from preprocess.talking_heads.speech.voices import Voice

ASSETS = Path(__file__).parents[2] / "assets"
_SIZE = 640  # pixels a side


@dataclass(frozen=True)
class Demo:
    """A video of somebody who says one thing, and a recording of another."""

    identity: int  # place in the list of test identities
    scene: int  # seed of room, light, camera and motion
    voice: Voice
    text: str
    other_voice: Voice
    other_text: str


DEMOS = (
    Demo(
        identity=35,
        scene=105,
        voice=Voice("flite", "rms"),
        text="Every morning I walk along the river before the shops open. The water is calm and nobody is in a hurry.",
        other_voice=Voice("flite", "rms", rate=1.05, resample=1.04),
        other_text="We moved the meeting to five in the afternoon. Please bring the blue folder, and a warm jacket.",
    ),
    Demo(
        identity=61,
        scene=239,
        voice=Voice("espeak", "f2"),
        text="My brother builds small boats from old furniture. Some of them even float for a while.",
        other_voice=Voice("espeak", "Andrea", rate=0.95),
        other_text="Do you remember the bakery on the corner? They have opened a second one by the bridge.",
    ),
    Demo(
        identity=58,
        scene=313,
        voice=Voice("espeak", "m3", "en-us"),
        text="The museum is free on Mondays, so we looked at every picture twice.",
        other_voice=Voice("espeak", "m3", "de"),
        other_text="Der Zug nach Bremen fährt heute von Gleis sieben ab. Bitte nehmen Sie Ihr Gepäck mit.",
    ),
)


def write_demo(number: int, demo: Demo, folder: Path) -> None:
    """Write the video and the recording of one demo (numbered from 1)."""
    speech, other = speak(demo.text, demo.voice), speak(demo.other_text, demo.other_voice)
    plan = ClipPlan("test", test_identities()[demo.identity], demo.voice, demo.text, demo.scene)
    settings = ClipSettings(width=_SIZE, height=_SIZE, gestures=True, clean_sound=True, crf=23)
    Clip(plan, speech, settings).write_video(folder / f"demo{number}_video.mp4")
    with staged(folder / f"demo{number}_audio.wav") as temporary:
        write_wave(temporary, other.samples)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m preprocess.talking_heads.demo", description="Make the demo inputs.")
    parser.add_argument("--output_dir", type=Path, default=ASSETS, help="folder for the three pairs (default: assets); files are replaced")
    folder = parser.parse_args(arguments).output_dir

    def work() -> None:
        for number, demo in enumerate(tqdm(DEMOS, unit="demo", disable=None), start=1):
            write_demo(number, demo, folder)

    return run_command(work, "preprocess", "the pair in work was not written.")


if __name__ == "__main__":
    sys.exit(main())
