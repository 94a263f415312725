"""The options of a job: `LipsyncOptions` is the one home of their names, types, defaults, choices and help.

The command line, the columns of a jobs file and the table in docs/inference.md derive from it: a new option is a new field.
"""

from argparse import _ArgumentGroup
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args, get_type_hints

from latentsync.errors import InputError
from latentsync.faces.selection import FaceChoice
from latentsync.media.video_writer import CODECS, PRESETS

LENGTHS = ("audio", "video")
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 999  # the schedule has 1000 steps and leaves the first one out
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None, metavar: str | None = None) -> Any:
    """A field of `LipsyncOptions`: its default, its help, the values it may have, what stands for its value in the help."""
    return field(default=default, metadata={"help": text, "choices": choices, "metavar": metavar})


@dataclass(frozen=True)
class LipsyncOptions:
    """The choices of one job; None leaves a choice to the model or to the codec. Raises InputError where a value cannot be used."""

    inference_steps: int | None = _option(
        None, f"denoising steps, 1 to {MOST_STEPS} (default: the model's, 20 if published); fewer are faster and coarser"
    )
    guidance_scale: float | None = _option(
        None,
        "how strongly the sound steers the mouth (default: the model's, 1.5 if published); 1 switches guidance off and halves the time",
    )
    seed: int = _option(1247, "the same seed gives the same video; -1 draws a fresh one")
    face: str = _option(
        "largest",
        "whose mouth: largest, left, right, a number counted from the left from 0, or x,y@seconds: whoever is at that pixel then "
        "(several, one a shot, separated by ;)",
        metavar="WHO",
    )
    audio_track: str | None = _option(
        None,
        "audio track of a sound file that has several: a number counted from 0, or a language such as eng "
        "(default: the one that the file marks as default, else the first)",
        metavar="WHICH",
    )
    length: str = _option(
        "audio",
        "what decides how long the result is: audio plays the video forwards and backwards, or cuts it; "
        "video cuts the sound, or adds silence",
        LENGTHS,
    )
    keep_fps: bool = _option(False, "keep the video's frame rate (default: 25 frames a second, as the networks were trained)")
    batch_clips: int = _option(1, "clips of 16 frames in one pass of the networks; more is faster on a large GPU")
    codec: str | None = _option(None, "video codec (default: h264, in .webm vp9)", tuple(CODECS))
    crf: int | None = _option(None, "quality of the one encode, lower is better (default: visually lossless for the codec)")
    preset: str | None = _option(None, "speed preset of the encoder (default: a fast one)", PRESETS, "PRESET")
    lossless: bool = _option(False, "encode without any loss: large files")
    overwrite: bool = _option(False, "replace an output file that exists")

    def __post_init__(self) -> None:
        if self.inference_steps is not None and not 1 <= self.inference_steps <= MOST_STEPS:
            raise InputError(
                f"inference_steps is {self.inference_steps}: give a number from 1 to {MOST_STEPS} (20 is the published setting)."
            )
        if self.guidance_scale is not None and not 0 <= self.guidance_scale <= 100:
            raise InputError(f"guidance_scale is {self.guidance_scale}: give a number from 0 to 100 (1.5 is usual, 1 switches it off).")
        if not -1 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed is {self.seed}: give a whole number from 0 up, or -1 for a fresh one.")
        if self.batch_clips < 1:
            raise InputError(f"batch_clips is {self.batch_clips}: give 1 or more.")
        if self.length not in LENGTHS:
            raise InputError(f"length is {self.length!r}: give one of {', '.join(LENGTHS)}.")
        FaceChoice.parse(self.face)

    def completed(self, inference_steps: int, guidance_scale: float) -> "LipsyncOptions":
        """The same with a model's own settings where nothing else was chosen."""
        return replace(
            self,
            inference_steps=inference_steps if self.inference_steps is None else self.inference_steps,
            guidance_scale=guidance_scale if self.guidance_scale is None else self.guidance_scale,
        )


OPTION_TYPES: dict[str, type] = {  # name -> bool, int, float or str; of one that may be None its other type
    name: next(kind for kind in (get_args(hint) or (hint,)) if kind is not type(None))
    for name, hint in get_type_hints(LipsyncOptions).items()
}


def add_option_arguments(group: _ArgumentGroup) -> None:
    """An argument of a command line for each option, under its own name."""
    for option in fields(LipsyncOptions):
        settings: dict[str, Any] = {"default": option.default, "help": _help(option.default, option.metadata["help"])}
        if OPTION_TYPES[option.name] is bool:
            settings["action"] = "store_true"
        else:
            settings |= {"type": OPTION_TYPES[option.name], **{key: option.metadata[key] for key in ("choices", "metavar")}}
        group.add_argument(f"--{option.name}", **settings)


def _help(default: Any, text: str) -> str:
    return text if default is None or default is False else f"{text} (default: {default})"


def parse_option(name: str, value: Any) -> Any:
    """A value of a file as the type of an option.

    Raises:
        ValueError: it is none.
    """
    kind, value = OPTION_TYPES[name], value.strip() if isinstance(value, str) else value
    if kind is bool:
        word = str(value).lower()
        if word not in TRUE_WORDS + FALSE_WORDS:
            raise ValueError(f"{value!r} is neither true nor false.")
        return word in TRUE_WORDS
    if kind is int and isinstance(value, float):
        raise ValueError(f"{value!r} is not a whole number.")
    if kind is float and isinstance(value, str):
        value = value.replace(",", ".")  # as spreadsheets write numbers where a semicolon separates cells
    return kind(value)


def option_table() -> str:
    """The options as the table of docs/inference.md."""
    lines = ["| option | values | |", "|---|---|---|"]
    for option in fields(LipsyncOptions):
        kind = {bool: "", int: "whole number", float: "number", str: "text"}[OPTION_TYPES[option.name]]
        values = ", ".join(option.metadata["choices"] or [kind])
        lines.append(f"| `--{option.name}` | {values} | {_help(option.default, option.metadata['help'])} |")
    return "\n".join(lines)
