"""The videos of an evaluation: pairs of video and sound, the model under test, the videos it generates."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.base import Kind
from latentsync.config import Config
from latentsync.errors import ConfigError, InputError, LatentSyncError
from latentsync.media.files import read_paths, read_record, walk_media, write_json
from latentsync.media.probe import probe
from latentsync.pipelines.build import ModelFiles, build_pipeline, locate_models, resolve_device
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import LipsyncOptions
from latentsync.weights import file_sha256

KINDS: tuple[Kind, ...] = ("reconstruction", "cross")


@dataclass(frozen=True)
class Pair:
    """One video that is to be generated; for the attributes see `eval.metrics.base.Case`."""

    name: str
    source: Path
    audio: Path
    kind: Kind


@dataclass(frozen=True)
class PairList:
    """All that a run is about."""

    pairs: tuple[Pair, ...]  # those of one source follow each other
    refused: dict[str, str]  # video -> why it has no pair, or not all
    drawn_by: dict[str, Any]  # what decided which pairs there are
    checksums: dict[str, str]  # file -> SHA-256

    def write(self, path: Path) -> None:
        """Write the list, or find it written. Raises ConfigError where another one is there, OutputError."""
        content = json.loads(json.dumps(asdict(self), default=str))
        if not path.is_file():
            write_json(path, content)
        elif read_record(path) != content:
            raise ConfigError(
                f"{path} is damaged or lists other pairs than this configuration draws now: name another folder for results (output.folder)"
            )


def find_videos(place: Path) -> list[Path]:
    """The videos of a folder and all below it, or those that a text file names, one a line. Raises InputError where there is none."""
    videos = list(walk_media(place)) if place.is_dir() else [path for _, path in read_paths(place)]
    if not videos:
        raise InputError(f"{place} holds no video: name a folder of clips, or a text file with one path a line")
    return videos


def make_pairs(videos: Sequence[Path], kinds: Sequence[Kind], seed: int) -> PairList:
    """Pairs of videos with their own sound or the next one's in a ring shuffled by the seed, never twice. Raises InputError: no pair."""
    has_sound, refused = {}, {}
    for video in videos:
        try:
            info = probe(video)
            info.require_video()
            has_sound[video] = info.has_audio
        except LatentSyncError as error:
            refused[str(video)] = str(error)
    names: dict[Path, str] = {}  # videos of one name in several folders get a number
    for video in has_sound:
        names[video] = free_name(video.stem, names.values())
    others = draw_others(has_sound, seed) if "cross" in kinds else {}
    pairs: list[Pair] = []
    for video, name in names.items():
        if "reconstruction" in kinds and has_sound[video]:
            pairs.append(Pair(name, video, video, "reconstruction"))
        if video in others:
            both = free_name(f"{name}__{names[others[video]]}", {*names.values(), *(pair.name for pair in pairs)})
            pairs.append(Pair(both, video, others[video], "cross"))
        if not pairs or pairs[-1].source != video:
            why = "there is no other video with sound" if has_sound[video] else "it has no sound, and no other gives it one"
            refused[str(video)] = f"{video} is left out: {why}."
        elif "reconstruction" in kinds and not has_sound[video]:
            refused[str(video)] = f"{video} has no sound of its own, so it has no reconstruction: it is used with another's alone."
    if not pairs:
        raise InputError(f"Not one of {len(videos)} videos can be used; {next(iter(refused.values()))}")
    digests = {str(video): file_sha256(video) for video in names}
    return PairList(tuple(pairs), refused, {"kinds": list(kinds), "seed": seed}, digests)


def draw_others(has_sound: dict[Path, bool], seed: int) -> dict[Path, Path]:
    """Video -> another one whose sound it gets; those for which there is no other with sound are left out."""
    ring = [list(has_sound)[place] for place in np.random.default_rng(seed).permutation(len(has_sound))]
    nexts = {video: (*ring[place + 1 :], *ring[:place]) for place, video in enumerate(ring)}
    return {video: next(filter(has_sound.get, others)) for video, others in nexts.items() if any(map(has_sound.get, others))}


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A name that is not taken: the one that is wanted, or it with the first number that is free."""
    names = chain([wanted], (f"{wanted}_{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def checksums(paths: Mapping[str, Path]) -> dict[str, str]:
    """The checksums of files, and of the files of folders, by name."""
    found = {}
    for name, path in paths.items():
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found |= {name if len(files) == 1 else f"{name}/{file.name}": file_sha256(file) for file in files if file.is_file()}
    return found


@dataclass
class GeneratedVideos:
    """Generates videos, or finds them generated, each with a .json of its name that appears after it."""

    folder: Path
    recipe: Mapping[str, Any]  # everything that decides how a video turns out but its inputs
    build: Callable[[], LipsyncPipeline]  # called for the first video that is generated
    options: LipsyncOptions = field(default_factory=lambda: LipsyncOptions(length="video", overwrite=True))

    @cached_property
    def pipeline(self) -> LipsyncPipeline:
        return self.build()

    def generate(self, name: str, video: Path, audio: Path) -> Path:
        """The video with other words. Raises as `LipsyncPipeline`, and ConfigError for the video of another recipe."""
        path, note = self.folder / f"{name}.mp4", self.folder / f"{name}.json"
        wanted = {"recipe": self.recipe, "video": file_sha256(video), "sound": file_sha256(audio)}
        if path.is_file() and note.is_file():
            if {key: read_record(note).get(key) for key in wanted} != wanted:
                raise ConfigError(f"{path} was generated by other weights, settings or clips: name another --output_dir, or delete it")
            return path
        note.unlink(missing_ok=True)
        result = self.pipeline(video, audio, path, self.options)
        write_json(note, {**wanted, "frames": result.frames, "generated": result.generated, "warnings": list(result.warnings)})
        return path


@dataclass(frozen=True)
class ModelUnderTest:
    """A model, found but not loaded; see `latentsync.pipelines.build`."""

    config: Config
    files: ModelFiles
    overrides: Sequence[str]
    detector: str
    device: str
    dtype: str
    options: LipsyncOptions  # of every job, completed by the model's own

    @property
    def weights(self) -> dict[str, str]:
        """The checksums of its files, with that of a mask that is a picture."""
        mask = Path(self.config.data.mask)
        files = {"unet": self.files.unet, "vae": self.files.vae, "whisper": self.files.whisper}
        return checksums({**files, "mask": mask} if mask.is_absolute() else files)

    def settings(self) -> dict[str, Any]:
        """What decides, beside weights and inputs, how a video turns out."""
        data, options = self.config.data, ("seed", "face", "strength", "silence", "length", "batch_clips")
        return {
            **asdict(self.options.sampling),
            **{name: getattr(self.options, name) for name in options},
            **{name: getattr(self, name) for name in ("detector", "dtype")},
            **{name: getattr(data, name) for name in ("resolution", "num_frames", "mask", "audio_feat_limit", "single_reference")},
            "audio_feat_length": list(data.audio_feat_length),
            "noise_scale": self.config.run.noise_scale,
        }

    def build(self) -> LipsyncPipeline:
        """Load it. Raises ConfigError, WeightsError, InputError."""
        pipeline = build_pipeline(
            *(self.files.config, self.files.unet, self.files.vae, self.files.whisper),
            **{name: getattr(self, name) for name in ("overrides", "device", "dtype", "detector")},
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def videos(self, folder: Path) -> GeneratedVideos:
        return GeneratedVideos(folder, {"weights": self.weights, "settings": self.settings()}, self.build, self.options)


def find_model(
    named: Sequence[Path | None], overrides: Sequence[str], detector: str, device: str, dtype: str, options: LipsyncOptions
) -> ModelUnderTest:
    """The model of four files (configuration, U-Net, VAE, Whisper; None: as inference). Raises ConfigError, WeightsError, InputError."""
    resolve_device(device)
    config, files = locate_models(*named, overrides=overrides)
    completed = options.completed(config.run.sampling)
    return ModelUnderTest(config, files, overrides, detector, device, dtype, replace(completed, overwrite=True))
