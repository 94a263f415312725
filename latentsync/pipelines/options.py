"""The options of a job: `LipsyncOptions` is the one home of their names, types, defaults, choices and help.

The command line, the columns of a jobs file and the table in docs/options.md derive from it: a new option is a new field.
"""

import re
from argparse import _ArgumentGroup
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, get_args, get_type_hints

from latentsync.config import SAMPLERS, Sampling
from latentsync.errors import InputError
from latentsync.faces.selection import FaceChoice
from latentsync.media.video_writer import CODECS, PRESETS

LENGTHS = ("audio", "video")
SILENCES = ("keep", "close")
STRONGEST = 1.5  # of `strength`
OVERRUNS = ("error", "warn", "stretch")
PATH_OPTIONS = ("face_ref", "bed")  # files; in a jobs file or a script they are relative to its folder
LINE_OPTIONS = ("face", "face_ref", "seed", "audio_track", "strength", "silence", "gain_db")  # may differ from line to line of a script
LOUDEST_DB = 40.0
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 999  # the schedule has 1000 steps and leaves the first one out
LAST_BRANCH = 11  # of the cache: four levels with three layers each
QUALITIES: dict[str, dict[str, Any]] = {  # preset -> settings of `Sampling`; what is not named is the model's or as published
    "draft": {"inference_steps": 3, "sampler": "dpm++"},
    "standard": {"inference_steps": 4, "sampler": "dpm++", "guidance_start": 0.2},  # the first step without guidance
    "fine": {},
}
TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)")
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None, metavar: str | None = None) -> Any:
    """A field of `LipsyncOptions`: its default, its help, the values it may have, what stands for its value in the help."""
    return field(default=default, metadata={"help": text, "choices": choices, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class LipsyncOptions:
    """The choices of one job; None leaves a choice to the model or to the codec. Raises InputError where a value cannot be used."""

    quality: str = _option(
        "standard",
        "preset of sampler, steps, guidance and cache, each of which can be chosen alone: draft is the fastest, fine the published setting",
        tuple(QUALITIES),
    )
    inference_steps: int | None = _option(None, f"denoising steps, 1 to {MOST_STEPS}; fewer are faster and coarser (default: the preset's)")
    guidance_scale: float | None = _option(
        None,
        "classifier-free guidance: how closely the mouth follows the audio; 1: off, half the time (default: the model's, 1.5 if published)",
    )
    sampler: str | None = _option(None, "sampler of the denoising steps; ddim: as published (default: the preset's)", tuple(SAMPLERS))
    guidance_start: float | None = _option(None, "share of the steps before guidance begins, 0 to 1 (default: the preset's)")
    guidance_stop: float | None = _option(None, "share of the steps after which guidance ends, 0 to 1 (default: the preset's)")
    cache_interval: int | None = _option(
        None, "every so many steps one in full, the others reuse its deep features (DeepCache); 1: off (default: the preset's)"
    )
    cache_branch: int | None = _option(
        None, f"how much of the network the other steps compute, 0 (least, fastest) to {LAST_BRANCH} (default: the preset's)"
    )
    seed: int = _option(1247, "the same seed gives the same video; -1: a random one")
    face: str = _option(
        "largest",
        "whose mouth: largest, left, right, an index from the left (0 is the first), or x,y@seconds: the face at that pixel at that time "
        "(several, one a shot, separated by ;)",
        metavar="WHO",
    )
    face_ref: str | None = _option(None, "a picture of the person whose mouth is changed, in place of --face", metavar="PICTURE")
    start: str | None = _option(None, "where the new words begin in the video, in seconds or h:mm:ss.fff: all else stays", metavar="TIME")
    end: str | None = _option(None, "where the new words end in the video (default: where the recording ends)", metavar="TIME")
    gain_db: float = _option(0.0, "loudness of the new words over that of the recording, in dB; with --start, --end or --script")
    overrun: str = _option(
        "error", "of words that last longer than their place: refuse them, warn, or speed them up by up to 10 %", OVERRUNS
    )
    original: str = _option(
        "mute", "the video's own sound under new words: mute, or by how many dB it is lowered, such as -18", metavar="LEVEL"
    )
    bed: str | None = _option(None, "music and effects in place of the video's own sound; with --start, --end or --script", metavar="FILE")
    audio_track: str | None = _option(
        None,
        "audio track, if there are several: an index from 0, or a language such as eng (default: the file's default track, else the first)",
        metavar="WHICH",
    )
    strength: float = _option(
        1.0, f"how much the sound moves the mouth, 0 to {STRONGEST}: below 1 towards the mouth of silence, above 1 beyond the usual"
    )
    silence: str = _option(
        "keep",
        "the mouth in frames in which nobody speaks. keep: it follows what there is of sound; close: it rests",
        SILENCES,
    )
    length: str = _option(
        "audio",
        "length of the result. audio: the video is cut, or played forwards and backwards; video: the audio is cut, or silence added",
        LENGTHS,
    )
    keep_fps: bool = _option(False, "keep the video's frame rate (default: 25 frames a second, as the networks were trained)")
    batch_clips: int = _option(1, "clips of 16 frames in one pass of the networks; more is faster on a large GPU")
    codec: str | None = _option(None, "video codec (default: h264; 10 bits: hevc; .webm: vp9; alpha: vp9 or prores)", tuple(CODECS))
    crf: int | None = _option(None, "constant rate factor, lower is better (default: visually lossless for the codec)")
    preset: str | None = _option(None, "speed preset of the encoder (default: a fast one)", PRESETS, "PRESET")
    lossless: bool = _option(False, "encode without any loss: large files")
    mark: bool = _option(False, 'write "AI-generated" small in a corner of all frames that get a new mouth')
    resume: bool = _option(False, "keep what is made so far after Ctrl-C, too: the same command goes on (after a crash it always does)")
    overwrite: bool = _option(False, "replace an output file that exists")

    def __post_init__(self) -> None:
        for name, least, most, usual in (
            ("inference_steps", 1, MOST_STEPS, "20 is the published setting"),
            ("guidance_scale", 0, 100, "1.5 is usual, 1 switches it off"),
            ("strength", 0, STRONGEST, "1 is as trained"),
            ("guidance_start", 0, 1, "0 guides from the first step on"),
            ("guidance_stop", 0, 1, "1 guides to the last step"),
            ("cache_interval", 1, MOST_STEPS, "3 is the published setting, 1 is off"),
            ("cache_branch", 0, LAST_BRANCH, "0 is the published setting"),
            ("gain_db", -LOUDEST_DB, LOUDEST_DB, "0 is the recording's own loudness"),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} is {value}: give a number from {least} to {most} ({usual}).")
        if not -1 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed is {self.seed}: give a whole number from 0 up, or -1 for a fresh one.")
        if self.batch_clips < 1:
            raise InputError(f"batch_clips is {self.batch_clips}: give 1 or more.")
        named = {"length": LENGTHS, "quality": tuple(QUALITIES), "sampler": tuple(SAMPLERS), "overrun": OVERRUNS, "silence": SILENCES}
        for name, known in named.items():
            if getattr(self, name) not in (*known, None):
                raise InputError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}.")
        FaceChoice.parse(self.face)
        _ = self.original_gain, self.is_range

    @property
    def original_gain(self) -> float:
        """By what the video's own sound is multiplied under new words, 0 to 1. Raises InputError."""
        try:
            level = float("-inf") if self.original == "mute" else float(self.original)
        except ValueError:
            level = 1.0
        if not level <= 0:
            raise InputError(f"original is {self.original!r}: give mute, or by how many dB it is lowered, such as -18.")
        return 10 ** (level / 20)

    @property
    def is_range(self) -> bool:
        """Whether new words are meant for a part of the video. Raises InputError for times that are none."""
        start, end = (None if text is None else parse_time(text) for text in (self.start, self.end))
        if end is not None and end <= (start or 0):
            raise InputError(f"end is {self.end}, which is not after the start: give a later time.")
        return (start, end) != (None, None)

    def completed(self, own: Sampling) -> "LipsyncOptions":
        """The same with the preset's settings, then the model's `own`, where nothing else was chosen; no preset takes more steps."""
        defaults = {**asdict(own), **QUALITIES[self.quality]}
        defaults["inference_steps"] = min(defaults["inference_steps"], own.inference_steps)
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    @property
    def sampling(self) -> Sampling:
        """How a job with completed options goes from noise to latents."""
        return Sampling(**{option.name: getattr(self, option.name) for option in fields(Sampling)})


def parse_time(text: str) -> Fraction:
    """Seconds, exactly, of a time such as "62.5", "1:02.5" or "0:01:02,500". Raises InputError."""
    match = TIME.fullmatch(text.strip().replace(",", "."))
    if match is None:
        raise InputError(f"{text!r} is no time: give seconds, such as 62.5, or h:mm:ss.fff, such as 0:01:02.500.")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)


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
    text = text.replace("%", "%%")  # argparse formats it
    return text if default is None or default is False else f"{text} (default: {default})"


def parse_option(name: str, value: Any) -> Any:
    """A value of a file as the type of an option. Raises ValueError where it is none."""
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
    """The options as the table of docs/options.md."""
    lines = ["| option | values | |", "|---|---|---|"]
    for option in fields(LipsyncOptions):
        kind = {bool: "", int: "whole number", float: "number", str: "text"}[OPTION_TYPES[option.name]]
        values = ", ".join(option.metadata["choices"] or [kind])
        lines.append(f"| `--{option.name}` | {values} | {_help(option.default, option.metadata['help']).replace('%%', '%')} |")
    return "\n".join(lines)
