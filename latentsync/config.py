"""Configurations of U-Net and SyncNet: the dataclasses, how YAML files and dotted overrides are read, and the checks."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentsync.constants import ATTENTION_HEADS, LATENT_CHANNELS, MAX_FRAMES, MOTION_NORM_GROUPS, RGB, SYNCNET_NORM_GROUPS, VAE_FACTOR
from latentsync.errors import ConfigError
from latentsync.published_config import MASK_NAMES, SYNCNET_KEYS, UNET_KEYS, PublishedKeys, current_values, leaves, without_attention

logger = logging.getLogger(__name__)

ConfigType = TypeVar("ConfigType")
PRECISIONS = ("auto", "bf16", "fp16", "no")
OPTIMIZERS = ("adamw", "adamw_8bit")
SYNCNETS = ("stable", "wav2lip")
LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")
LARGEST_SEED = 2**31 - 1  # leaves room for one seed for each process
MAX_INFERENCE_STEPS = 1000  # steps of the schedule that the denoiser is trained on
LEVELS = 4  # levels of the denoiser: three with attention, one without
MIN_RESOLUTION = 64  # pixels: eight latent cells, the least that three halvings leave something of


SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> scheduler of diffusers and its settings; adding one takes a line
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),  # as published
    "dpm++": ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),  # DPM-Solver++ 2M (arXiv 2211.01095)
    "unipc": ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min"}),  # arXiv 2302.04867
}


@dataclass(frozen=True)
class Sampling:
    """How the sampling loop goes from noise to latents. By default as published, but without the cache of features."""

    inference_steps: int = 20  # denoising steps, 1 to 999
    guidance_scale: float = 1.5  # of classifier-free guidance; 1 or less switches it off
    sampler: str = "ddim"  # one of `SAMPLERS`
    guidance_start: float = 0.0  # guidance is used in steps whose middle lies from this share of all on (0 to 1) ...
    guidance_stop: float = 1.0  # ... until before this one
    cache_interval: int = 1  # steps from one full step of the denoiser to the next; those between take the last full one's deep features
    cache_branch: int = 0  # how little the steps between compute, see `FeatureCache`

    def guidance_at(self, step: int) -> float:
        """The scale of guidance in step 0, 1, ..."""
        return self.guidance_scale if self.guidance_start <= (step + 0.5) / self.inference_steps < self.guidance_stop else 1.0

    @property
    def is_guided(self) -> bool:
        """Whether any step is guided and so runs twice the clips."""
        return any(self.guidance_at(step) > 1 for step in range(self.inference_steps))


@dataclass
class TrainingDataConfig:
    """Where clips come from and how many make a batch. A clip is a video of one aligned face at 25 frames a second with sound."""

    train_data_dir: Path | None = None  # folder of clips
    train_fileslist: Path | None = None  # ... and, or, a text file with one clip a line, relative to that file
    val_data_dir: Path | None = None  # held-out clips: never of people that are trained on
    val_fileslist: Path | None = None
    train_output_dir: Path | None = None  # checkpoints, logs, charts, validation videos
    cache_dir: Path | None = None  # what is computed once for each clip; None: "cache" in the output folder
    cache_faces: bool = False  # keep decoded faces on disk (3 x resolution x resolution bytes a frame) where decoding holds training up
    batch_size: int = 1  # clips in one pass of one process
    num_workers: int = 4  # processes that read clips, for each training process


@dataclass
class RunConfig:
    """How long, in which precision, how often validated."""

    seed: int = 1247
    mixed_precision: str = "auto"  # "bf16", "fp16" (with loss scaling) or "no"; auto: what the device is good at
    max_train_steps: int = 10_000_000  # steps of the optimizer
    gradient_accumulation_steps: int = 1  # passes added up in one step
    ema_decay: float = 0.0  # of the moving average of the weights that is validated and saved; 0: none
    validation_steps: int = 1000  # steps between two validations; there is one before the first step
    log_steps: int = 10  # steps whose mean is one point of the log and the chart
    num_val_clips: int = 64  # held-out clips in each validation
    loss_weights: dict[str, float] = field(default_factory=dict)  # loss -> its weight in the sum; losses of weight 0 are not computed


@dataclass
class OptimizerConfig:
    """AdamW and its learning rate."""

    name: str = "adamw"  # "adamw_8bit" keeps its moments in 8 bits (CUDA, package bitsandbytes)
    lr: float = 1e-5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0  # gradients longer than this are shortened to it
    lr_scheduler: str = "constant"  # or "constant_with_warmup", "linear", "cosine"
    lr_warmup_steps: int = 0


@dataclass
class CkptConfig:
    """What training starts from and what it keeps."""

    resume_ckpt_path: Path | None = None  # weights that a new training starts from; a training that was stopped goes on by itself
    save_ckpt_steps: int = 10_000
    keep_last: int = 3  # checkpoints kept; the newest two can be resumed from


@dataclass
class TrainingConfig:
    """What the configurations of all trainings have."""

    data: TrainingDataConfig = field(default_factory=TrainingDataConfig)
    run: RunConfig = field(default_factory=RunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)


@dataclass
class UNetConfig:
    """Sizes of the denoiser; everything else about it is fixed by the method."""

    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])  # width of each level
    layers_per_block: int = 2
    norm_num_groups: int = 32  # groups of the convolution blocks' norms
    cross_attention_dim: int = 384  # width of an audio token: 384 for Whisper tiny, 768 for small
    use_motion_module: bool = True  # attention along time
    motion_module_decoder_only: bool = False  # ... in the up path alone


@dataclass
class DataConfig(TrainingDataConfig):
    """What one clip is: picture size, frames, sound of a frame, mask; and where clips for training come from."""

    resolution: int = 256  # side of the aligned face, pixels
    num_frames: int = 16  # frames in a clip
    audio_feat_length: list[int] = field(default_factory=lambda: [2, 2])  # video frames of sound before and after each frame
    audio_feat_limit: float = 0.0  # audio features beyond it, of either sign, are cut off; 0: none is, as published
    mask: str = "mask"  # which fixed mask: "mask", "mask2", "mask3", "mask4"; or the path of a picture, white = keep
    audio_dropout: float = 0.0  # share of training clips whose audio is replaced by zeros, so that guidance has a trained other half
    counterfactual_pairs: bool = False  # pairs of clips that differ in the words alone (rendered heads): each is painted over the other
    single_reference: bool = False  # one frame is the reference of all, in training and in inference: it tells nothing of the old words
    cache_latents: bool = False  # encode each clip once and keep its latents on disk
    syncnet_config_path: Path | None = None  # YAML of the SyncNet behind the sync losses
    val_video_path: Path | None = None  # a video that validation syncs ...
    val_audio_path: Path | None = None  # ... to this recording; without both there is no validation video


@dataclass
class WeightsConfig:
    """Files of the networks; in a YAML file relative to its folder, in an override to the working folder. None: the default place."""

    unet: Path | None = None  # the denoiser's checkpoint
    vae: Path | None = None  # a folder in the layout of diffusers
    whisper: Path | None = None  # the audio encoder's checkpoint
    syncnet: Path | None = None  # training: the network behind the sync losses
    vgg16: Path | None = None  # training: the network behind LPIPS
    videomae: Path | None = None  # training: the network behind TREPA
    landmark_network: Path | None = None  # training: this project's own network behind the landmark losses; None: none


@dataclass
class VideoMAEConfig:
    """Sizes of the video network behind TREPA (VideoMAE v2; the defaults are ViT-g/14)."""

    image_size: int = 224
    patch_size: int = 14
    num_frames: int = 16
    tubelet_size: int = 2
    width: int = 1408
    depth: int = 40
    num_heads: int = 16
    hidden: int = 6144  # width inside the feed-forward layers


@dataclass
class UNetRunConfig(RunConfig):
    """... for the denoiser."""

    loss_weights: dict[str, float] = field(
        default_factory=lambda: {
            "recon": 1.0,
            **dict.fromkeys(("sync", "lpips", "trepa"), 0.0),  # as published
            **dict.fromkeys(("sync_source", "landmark_feature", "temporal_feature", "landmarks", "lips"), 0.0),  # of this project alone
        }
    )
    trainable_modules: list[str] = field(default_factory=list)  # parts of parameter names that are trained; empty: everything
    enable_gradient_checkpointing: bool = True  # compute activations twice instead of keeping them
    vae_slice_size: int = 4  # faces that the autoencoder holds activations of at once; 0: all
    use_mixed_noise: bool = True  # noise of which a part is shared by all frames
    low_frequency_noise: float = 0.0  # standard deviation of noise in large waves that is added while training; 0: as published
    timestep_bias: float = 0.0  # share of the samples that are taken from the noisiest quarter of the timesteps; 0: as published
    noise_scale: float = 1.0  # standard deviation of the noise that inference starts from; published: 1; 0: from none, whatever the seed
    use_reference: bool = True  # False: hidden, in training and in inference, so that the denoiser never comes to need it
    x0_weighting: float = 1.0  # up to how much more a noisy step counts in recon, where mouths get their shape; 1: all count alike
    mouth_weight: float = 1.0  # how much more the cells of the lips count in recon; 1: all count alike
    mixed_noise_alpha: float = 1.0  # weight of the shared part against each frame's own
    inference_steps: int = 20  # of the validation video, and of inference where nothing else is chosen; presets take no more
    guidance_scale: float = 1.5  # likewise
    sampler: str = "ddim"  # likewise, one of `SAMPLERS`
    paste: str = "face"  # inference: what goes into the frame, the whole aligned "face", as published, or what of "mask" is face
    match_skin: bool = False  # inference: bring the broad colours of what was generated to those of the source; False: as published

    @property
    def sampling(self) -> Sampling:
        """How inference goes from noise to latents where nothing else is chosen."""
        return Sampling(self.inference_steps, self.guidance_scale, self.sampler)


@dataclass
class Config(TrainingConfig):
    """One configuration of the method: clips, denoiser, weight files, and how the denoiser is trained."""

    data: DataConfig = field(default_factory=DataConfig)
    model: UNetConfig = field(default_factory=UNetConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    videomae: VideoMAEConfig = field(default_factory=VideoMAEConfig)
    run: UNetRunConfig = field(default_factory=UNetRunConfig)


@dataclass
class EncoderConfig:
    """One of SyncNet's two encoders; all lists have one entry for each block."""

    in_channels: int = 1
    block_out_channels: list[int] = field(default_factory=list)
    downsample_factors: list[Any] = field(default_factory=list)  # a number, or [height, width]
    attn_blocks: list[int] = field(default_factory=list)  # 1: a block of attention follows
    dropout: float = 0.0


@dataclass
class SyncNetModelConfig:
    """SyncNet's two encoders; the defaults are those of the published network of 1.5 and 1.6."""

    network: str = "stable"  # or "wav2lip", the one of the paper's ablation: of fixed size, whatever the encoders below say
    audio_encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(
            1, [32, 64, 128, 256, 512, 1024, 2048], [[2, 1], 2, 2, 1, 2, 2, [2, 3]], [0, 0, 0, 1, 1, 0, 0]
        )
    )
    visual_encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(
            48, [64, 128, 256, 256, 512, 1024, 2048, 2048], [[1, 2], 2, 2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 1, 1, 0, 0]
        )
    )


@dataclass
class SyncNetDataConfig(TrainingDataConfig):
    """What SyncNet is shown."""

    resolution: int = 256  # side of the aligned face, pixels
    num_frames: int = 16
    latent_space: bool = False  # latents of the autoencoder instead of pixels
    lower_half: bool = True  # the lower half of the face alone
    batch_size: int = 256


@dataclass
class SyncNetWeightsConfig:
    """Files of the networks that SyncNet's training needs."""

    vae: Path | None = None  # for latents only


@dataclass
class SyncNetRunConfig(RunConfig):
    """... for SyncNet."""

    seed: int = 42
    loss_weights: dict[str, float] = field(default_factory=lambda: {"sync": 1.0, "mouth": 0.0, "infonce": 0.0})
    chance_steps: int = 2000  # steps after which a loss that still sits at chance level is worth a warning


@dataclass
class SyncNetConfig(TrainingConfig):
    """One SyncNet and how it is trained."""

    data: SyncNetDataConfig = field(default_factory=SyncNetDataConfig)
    model: SyncNetModelConfig = field(default_factory=SyncNetModelConfig)
    weights: SyncNetWeightsConfig = field(default_factory=SyncNetWeightsConfig)
    run: SyncNetRunConfig = field(default_factory=SyncNetRunConfig)


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration of a denoiser, ours or published with versions 1.0, 1.5 or 1.6, and check it; see `read_config`.

    Whether the paths in it exist is not checked: inference needs none of those for training. Raises ConfigError.
    """
    config, source = read_config(Config, UNET_KEYS, path, overrides)
    enforce(config, unet_rules(config), source)
    return config


def load_syncnet_config(path: Path | str, overrides: Sequence[str] = ()) -> SyncNetConfig:
    """Read the configuration of a SyncNet, ours or published; like `load_config`."""
    config, source = read_config(SyncNetConfig, SYNCNET_KEYS, path, overrides)
    enforce(config, syncnet_rules(config), source)
    return config


def dump_config(config: Any) -> str:
    """A configuration, whichever its dataclass, as YAML that its loader reads back as the same."""
    plain = json.loads(json.dumps(asdict(config), default=str))  # paths as strings
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Source:
    """Where the values of a configuration come from."""

    path: Path | str  # the YAML file
    overrides: dict[str, str] = field(default_factory=dict)  # dotted key -> the override that sets it, as it was written

    def of(self, key: str) -> str:
        """What a message about a key begins with: the override that sets it, alone, or the file."""
        if key in self.overrides:
            return f"override '{self.overrides[key]}'"
        return f"{self.path} with overrides" if self.overrides else str(self.path)


def read_config(
    kind: type[ConfigType], published: PublishedKeys, path: Path | str, overrides: Sequence[str] = ()
) -> tuple[ConfigType, Source]:
    """Read a YAML file on top of the defaults of a dataclass of sections, and dotted overrides ("data.resolution=512") on top of that.

    Relative paths are counted from the file's folder, in overrides from the working folder. `published` has the keys of published files
    that are not fields. Gives the configuration with absolute paths, not checked yet, and where its values come from. Raises ConfigError.
    """
    path = Path(path)
    current = current_keys(kind)
    names = frozenset(current)

    def read(tree: dict[str, Any], folder: Path, where: str) -> tuple[dict[str, Any], list[str]]:
        found, ignored = current_values(leaves(tree), names, published, where)
        for key, value in found.items():
            if isinstance(value, str) and (current[key] == Path | None or key in published.pictures):
                found[key] = resolved(key, value, published.pictures.get(key), folder, where)
        return found, ignored

    values, ignored = read(read_yaml(path, [entry.name for entry in fields(kind)]), path.absolute().parent, str(path))
    values |= without_attention(values, names)
    if ignored:
        logger.warning("%s: these keys of published files have no effect here: %s", path, ", ".join(ignored))
    source = Source(path)
    for override in overrides:  # one by one: a message names the one that is wrong
        changed, ignored = read(read_override(override), Path.cwd(), f"override '{override}'")
        if ignored:
            raise ConfigError(f"override '{override}': '{ignored[0]}' has no effect here; leave it out")
        values |= changed
        source.overrides.update(dict.fromkeys(changed, override))
    return to_config(kind, values, source), source


def current_keys(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of every value in a dataclass of dataclasses; a mapping counts by the entries of its default."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for entry in fields(kind):
        key = f"{prefix}{entry.name}"
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if is_dataclass(default):
            found |= current_keys(type(default), f"{key}.")
        elif isinstance(default, dict):
            found |= {f"{key}.{name}": type(value) for name, value in default.items()}
        else:
            found[key] = hints[entry.name]
    return found


def read_yaml(path: Path, sections: Sequence[str]) -> dict[str, Any]:
    """A YAML file as nested plain mappings; ConfigError says why it cannot be one."""
    try:
        loaded = OmegaConf.load(path)
        tree = OmegaConf.to_container(loaded, resolve=True) if isinstance(loaded, DictConfig) else None
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror or 'not a YAML file'}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: this is not a valid YAML file ({one_line(error)})") from error
    if not tree:
        raise ConfigError(f"{path}: the configuration holds no sections; it needs at least one of {', '.join(sections)}")
    return tree


def read_override(override: str) -> dict[str, Any]:
    """A dotted setting as nested plain mappings."""
    key, equals, _ = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"override '{override}': write it as section.key=value, such as data.resolution=512")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override '{override}': {one_line(error)}") from error


def resolved(key: str, value: str, pictures: tuple[str, ...] | None, folder: Path, where: str) -> Path | str | None:
    """An absolute path; an empty one is none.

    Where names may stand for a picture, names and other words stay as they are, and a published picture's path, such as
    "some/folder/mask2.png", becomes its name unless such a file is there.
    """
    if pictures is not None and (value in pictures or (Path(value).name == value and not Path(value).suffix)):
        return value
    try:
        path = (folder / Path(value).expanduser()).resolve() if value else None
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"{where}: '{key}' is {value!r}, which is no path ({one_line(error)})") from error
    if pictures is None:
        return path
    return path.stem if path.stem in pictures and not path.is_file() else str(path)


def to_config(kind: type[ConfigType], values: Mapping[str, Any], source: Source) -> ConfigType:
    """Dotted values on top of the defaults; a value of the wrong type is a ConfigError."""
    schema = OmegaConf.structured(kind)
    for key, value in values.items():
        try:
            OmegaConf.update(schema, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{source.of(key)}: '{key}' cannot be {value!r} ({one_line(error)})") from error
    return OmegaConf.to_object(schema)


def one_line(error: Exception) -> str:
    """What a library says is wrong, on one line; with the line of the file where it knows."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"line {mark.line + 1}: {problem}"
    return str(error).strip().split("\n")[0].rstrip(".")


class Rule(NamedTuple):
    """One thing that a value must be."""

    key: str  # dotted, in the whole configuration
    holds: bool
    must_be: str


def enforce(config: Any, rules: Sequence[Rule], source: Source) -> None:
    """Refuse the first value that breaks its rule; the ConfigError names the file, or the override, that it comes from."""
    for rule in rules:
        if not rule.holds:
            value = config
            for name in rule.key.split("."):
                value = value[name] if isinstance(value, dict) else getattr(value, name)
            raise ConfigError(f"{source.of(rule.key)}: '{rule.key}' is {value!r}, but it must be {rule.must_be}")


def at_least(least: int, section: str, values: Any, *names: str) -> list[Rule]:
    """The rules for finite numbers of one section."""
    return [Rule(f"{section}.{name}", least <= getattr(values, name) < inf, f"{least} or more") for name in names]


def one_of(key: str, value: str, names: Sequence[str]) -> Rule:
    """The rule for a name out of a list."""
    return Rule(key, value in names, f"one of {', '.join(names)}")


def shared_rules(config: TrainingConfig) -> list[Rule]:
    """What holds for every training."""
    data, run, optimizer, ckpt = config.data, config.run, config.optimizer, config.ckpt
    weights = run.loss_weights
    return [
        *at_least(1, "data", data, "batch_size"),
        *at_least(0, "data", data, "num_workers"),
        Rule("run.seed", 0 <= run.seed <= LARGEST_SEED, f"between 0 and {LARGEST_SEED}"),
        *at_least(1, "run", run, "max_train_steps", "gradient_accumulation_steps", "validation_steps", "log_steps", "num_val_clips"),
        one_of("run.mixed_precision", run.mixed_precision, PRECISIONS),
        Rule("run.ema_decay", 0 <= run.ema_decay < 1, "0 for none, or less than 1"),
        *(Rule(f"run.loss_weights.{name}", 0 <= weight < inf, "0 for none, or more") for name, weight in weights.items()),
        Rule("run.loss_weights", sum(weights.values()) > 0, "more than 0 for one loss at least"),
        one_of("optimizer.name", optimizer.name, OPTIMIZERS),
        Rule("optimizer.lr", 0 < optimizer.lr < inf, "more than 0"),
        Rule("optimizer.max_grad_norm", optimizer.max_grad_norm > 0, "more than 0"),
        one_of("optimizer.lr_scheduler", optimizer.lr_scheduler, LR_SCHEDULERS),
        *at_least(0, "optimizer", optimizer, "weight_decay", "lr_warmup_steps"),
        *at_least(1, "ckpt", ckpt, "save_ckpt_steps", "keep_last"),
    ]


def multiple_of(section: str, values: Any, name: str, part: str) -> list[Rule]:
    """The rule for a size that is divided by another one; a part that is no size has a rule of its own."""
    whole, size = getattr(values, name), getattr(values, part)
    return [Rule(f"{section}.{name}", size < 1 or whole % size == 0, f"a multiple of {section}.{part}, which is {size}")]


def unet_rules(config: Config) -> list[Rule]:
    """What holds for the denoiser and its training."""
    data, model, run, videomae = config.data, config.model, config.run, config.videomae
    widths, groups, around = model.block_out_channels, model.norm_num_groups, data.audio_feat_length
    divisors = {ATTENTION_HEADS, groups} | ({MOTION_NORM_GROUPS} if model.use_motion_module else set())
    return [
        Rule(
            "data.resolution",
            data.resolution >= MIN_RESOLUTION and data.resolution % VAE_FACTOR == 0,
            f"a multiple of {VAE_FACTOR}, {MIN_RESOLUTION} or more",
        ),
        Rule("data.num_frames", 1 <= data.num_frames <= MAX_FRAMES, f"between 1 and {MAX_FRAMES}"),
        Rule("data.audio_feat_length", len(around) == 2 and min(around) >= 0, "two whole numbers, 0 or more"),
        *at_least(0, "data", data, "audio_feat_limit"),
        Rule("data.mask", data.mask in MASK_NAMES or Path(data.mask).is_absolute(), f"one of {', '.join(MASK_NAMES)}, or a picture's path"),
        *at_least(1, "model", model, "layers_per_block", "norm_num_groups", "cross_attention_dim"),
        Rule(
            "model.block_out_channels",
            len(widths) == LEVELS and min(widths) > 0 and groups >= 1 and not any(width % d for width in widths for d in divisors),
            f"{LEVELS} widths, each a multiple of {' and '.join(map(str, sorted(divisors)))}",
        ),
        Rule("data.audio_dropout", 0 <= data.audio_dropout <= 1, "a share between 0 and 1"),
        Rule(
            "data.val_audio_path",
            (data.val_audio_path is None) == (data.val_video_path is None),
            "set together with 'data.val_video_path', or both must be left out",
        ),
        *shared_rules(config),
        *at_least(0, "run", run, "noise_scale", "vae_slice_size", "low_frequency_noise", "mixed_noise_alpha", "guidance_scale"),
        *at_least(1, "run", run, "x0_weighting", "mouth_weight"),
        Rule("run.timestep_bias", 0 <= run.timestep_bias <= 1, "a share between 0 and 1"),
        Rule("run.inference_steps", 1 <= run.inference_steps <= MAX_INFERENCE_STEPS, f"between 1 and {MAX_INFERENCE_STEPS}"),
        one_of("run.paste", run.paste, ("face", "mask")),
        one_of("run.sampler", run.sampler, tuple(SAMPLERS)),
        *at_least(1, "videomae", videomae, *(entry.name for entry in fields(videomae))),
        *multiple_of("videomae", videomae, "image_size", "patch_size"),
        *multiple_of("videomae", videomae, "num_frames", "tubelet_size"),
        *multiple_of("videomae", videomae, "width", "num_heads"),
    ]


def syncnet_rules(config: SyncNetConfig) -> list[Rule]:
    """What holds for SyncNet and its training; that its blocks shrink the picture to one cell is left to the network."""
    data, audio, visual = config.data, config.model.audio_encoder, config.model.visual_encoder
    each, kind = (LATENT_CHANNELS, "a latent") if data.latent_space else (RGB, "an RGB picture")
    channels = each * data.num_frames
    sizes = [
        *encoder_rules("model.audio_encoder", audio),
        *encoder_rules("model.visual_encoder", visual),
        Rule("model.audio_encoder.in_channels", audio.in_channels == 1, "1, for a mel spectrogram is one picture"),
        Rule(
            "model.visual_encoder.in_channels",
            visual.in_channels == channels,
            f"{channels}: {each}, the channels of {kind}, for each of {data.num_frames} frames (data.num_frames, data.latent_space)",
        ),
        Rule(
            "model.visual_encoder.block_out_channels",
            audio.block_out_channels[-1:] == visual.block_out_channels[-1:],
            f"a list that ends like model.audio_encoder.block_out_channels, with {audio.block_out_channels[-1:]}",
        ),
    ]
    why = "because model.network is wav2lip"
    fixed = {"num_frames": 5, "resolution": 256, "latent_space": False, "lower_half": True}
    wav2lip = [Rule(f"data.{name}", getattr(data, name) == value, f"{str(value).lower()}, {why}") for name, value in fixed.items()]
    wav2lip.append(Rule("data.batch_size", data.batch_size >= 2, f"2 or more, {why} and has batch norms"))
    return [
        Rule("data.resolution", data.resolution > 0 and data.resolution % VAE_FACTOR == 0, f"a multiple of {VAE_FACTOR}"),
        *at_least(1, "data", data, "num_frames"),
        *shared_rules(config),
        *at_least(1, "run", config.run, "chance_steps"),
        one_of("model.network", config.model.network, SYNCNETS),
        *(wav2lip if config.model.network == "wav2lip" else sizes),
    ]


def encoder_rules(section: str, encoder: EncoderConfig) -> list[Rule]:
    """What holds for either encoder of SyncNet."""

    def is_factor(factor: Any) -> bool:
        pair = factor if isinstance(factor, list) else [factor, factor]
        return len(pair) == 2 and all(type(number) is int and number >= 1 for number in pair)

    widths = encoder.block_out_channels
    as_many = f"a list as long as {section}.block_out_channels, {len(widths)}"
    return [
        Rule(
            f"{section}.block_out_channels",
            bool(widths) and all(width > 0 and width % SYNCNET_NORM_GROUPS == 0 for width in widths),
            f"a list of widths, each a multiple of {SYNCNET_NORM_GROUPS}",
        ),
        Rule(
            f"{section}.downsample_factors",
            len(encoder.downsample_factors) == len(widths) and all(map(is_factor, encoder.downsample_factors)),
            f"{as_many}; each entry a whole number from 1 on, or two of them for height and width",
        ),
        Rule(
            f"{section}.attn_blocks",
            len(encoder.attn_blocks) == len(widths) and set(encoder.attn_blocks) <= {0, 1},
            f"{as_many}; each entry 1 for a block of attention, 0 for none",
        ),
        Rule(f"{section}.dropout", 0 <= encoder.dropout < 1, "0 for none, or less than 1"),
    ]
