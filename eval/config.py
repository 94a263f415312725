"""The configuration of an evaluation."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from eval.cases import KINDS
from latentsync.config import LARGEST_SEED, Rule, Sampling, at_least, enforce, one_of, read_config
from latentsync.faces.detector import NAMES as DETECTORS
from latentsync.pipelines.build import DTYPES
from latentsync.pipelines.options import LipsyncOptions
from latentsync.published_config import NOT_PUBLISHED

logger = logging.getLogger(__name__)


@dataclass
class PairsConfig:
    """What is measured on."""

    videos: Path | None = None  # a folder of clips, or a text file that names some
    kinds: list[str] = field(default_factory=lambda: list(KINDS))  # with which sounds: their own, another's
    seed: int = 1247  # decides which sound each video gets
    generated: Path | None = None  # videos generated elsewhere: a folder with NAME.mp4 for each name in pairs.json


@dataclass
class ModelConfig:
    """The model under test; what is not named is found as `inference.sh` finds it."""

    config: Path | None = None
    unet: Path | None = None
    vae: Path | None = None
    whisper: Path | None = None
    overrides: list[str] = field(default_factory=list)  # dotted settings that win over the denoiser's configuration
    detector: str = "auto"
    device: str = "auto"
    dtype: str = "auto"


InferenceConfig = make_dataclass(  # how videos are generated: some of `LipsyncOptions`
    "InferenceConfig",
    [
        (option.name, option.type, option.default)
        for option in fields(LipsyncOptions)
        if option.name in ("quality", "seed", "face", "strength", "silence", "batch_clips", *Sampling.__dataclass_fields__)
    ],
)


@dataclass
class MeasuresConfig:
    """Which metrics, and their files; what is not named lies in checkpoints/."""

    names: list[str] = field(default_factory=list)  # none: all whose weights are there
    resolution: int = 256  # side in pixels of the aligned faces that are measured on, whatever the model's own
    syncnet_config: Path | None = None  # a SyncNet of this project, for the metric stable_sync
    syncnet: Path | None = None
    landmark_network: Path | None = None  # a landmark network of this project
    identity: Path | None = None  # a face recognition network (torchscript)
    i3d: Path | None = None  # the network of FVD (torchscript)
    inception: Path | None = None  # the network of FID


@dataclass
class ReportConfig:
    """The folder of results and what the report shows."""

    folder: Path | None = None  # for everything
    clips: int = 6  # side by side videos in the report: the worst of each metric in turn
    stand_ins: list[str] = field(default_factory=list)  # networks that are random or stand for others, in words that head the report


@dataclass
class EvaluationConfig:
    data: PairsConfig = field(default_factory=PairsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    measures: MeasuresConfig = field(default_factory=MeasuresConfig)
    output: ReportConfig = field(default_factory=ReportConfig)


OLD_METRICS = {"own_sync": "stable_sync"}  # read for one more release


def load_evaluation_config(path: Path | str, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """Read the configuration of an evaluation; see `latentsync.config.load_config`. Raises ConfigError, InputError."""
    config, source = read_config(EvaluationConfig, NOT_PUBLISHED, path, overrides)
    data, measures = config.data, config.measures
    for old in sorted(OLD_METRICS.keys() & set(measures.names)):
        logger.warning("%s: measures.names: %s is called %s now", path, old, OLD_METRICS[old])
    measures.names = [OLD_METRICS.get(name, name) for name in measures.names]
    rules = [
        Rule("data.videos", data.videos is not None, "the folder of the clips, or a text file that names them"),
        Rule("output.folder", config.output.folder is not None, "the folder for results"),
        Rule("data.kinds", bool(data.kinds) and set(data.kinds) <= set(KINDS), f"one or both of {', '.join(KINDS)}"),
        Rule("data.seed", 0 <= data.seed <= LARGEST_SEED, f"between 0 and {LARGEST_SEED}"),
        one_of("model.detector", config.model.detector, DETECTORS),
        one_of("model.dtype", config.model.dtype, ("auto", *DTYPES)),
        Rule("measures.syncnet_config", (measures.syncnet is None) == (measures.syncnet_config is None), "named with measures.syncnet"),
        Rule("inference.seed", config.inference.seed >= 0, "0 or more, so that the same videos can be generated again"),
        *at_least(32, "measures", measures, "resolution"),
        *at_least(0, "output", config.output, "clips"),
    ]
    enforce(config, rules, source)
    options_of(config.inference)
    return config


def options_of(inference: Any) -> LipsyncOptions:
    """The options of every job by an `InferenceConfig`; results last as long as their video. Raises InputError."""
    return LipsyncOptions(**asdict(inference), length="video", overwrite=True)
