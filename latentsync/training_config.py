"""The dataclasses behind the training part of the YAML files: data, run, optimizer, checkpoints; and SyncNet's whole configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRECISIONS = ("auto", "bf16", "fp16", "no")
OPTIMIZERS = ("adamw", "adamw_8bit")
SYNCNETS = ("stable", "wav2lip")
LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")


@dataclass
class TrainingDataConfig:
    """Where clips come from and how many are looked at together. A clip is a video of one aligned face at 25 frames a second with sound."""

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
class RunConfig:
    """How long, how exactly, how often looked at."""

    seed: int = 1247
    mixed_precision: str = "auto"  # "bf16", "fp16" (with loss scaling) or "no"; auto: what the device is good at
    max_train_steps: int = 10_000_000  # steps of the optimizer
    gradient_accumulation_steps: int = 1  # passes added up in one step
    ema_decay: float = 0.0  # of the moving average of the weights that is validated and saved; 0: none
    validation_steps: int = 1000  # steps between two validations; there is one before the first step
    log_steps: int = 10  # steps whose mean is one point of the log and the chart
    num_val_clips: int = 64  # held-out clips looked at in each validation
    loss_weights: dict[str, float] = field(default_factory=dict)  # loss -> its weight in the sum; losses of weight 0 are not computed


@dataclass
class UNetRunConfig(RunConfig):
    """... for the denoiser."""

    loss_weights: dict[str, float] = field(
        default_factory=lambda: {
            **{"recon": 1.0, "sync": 0.0, "lpips": 0.0, "trepa": 0.0},  # as published
            "sync_source": 0.0,  # for clips with twins
            **{"reader": 0.0, "reader_motion": 0.0, "reader_points": 0.0},  # of this project's mouth reader
        }
    )
    trainable_modules: list[str] = field(default_factory=list)  # parts of parameter names that are trained; empty: everything
    enable_gradient_checkpointing: bool = True  # compute activations twice instead of keeping them
    vae_slice_size: int = 4  # faces that the autoencoder holds activations of at once; 0: all
    use_mixed_noise: bool = True  # noise of which a part is shared by all frames
    coarse_noise: float = 0.0  # standard deviation of noise in large waves that is added while training; 0: as published
    noisy_share: float = 0.0  # share of the samples that are drawn from the noisiest quarter of the timesteps; 0: as published
    use_reference: bool = True  # False: hidden, in training and in inference, so that the denoiser never comes to need it
    noisy_weight: float = 1.0  # up to how much more a noisy step counts in recon, where mouths get their shape; 1: all count alike
    mouth_weight: float = 1.0  # how much more the cells of the lips count in recon; 1: all count alike
    mixed_noise_alpha: float = 1.0  # weight of the shared part against each frame's own
    inference_steps: int = 20  # of the validation video, and of inference where nothing else is chosen
    guidance_scale: float = 1.5  # likewise
    paste: str = "face"  # inference: what goes into the frame, the whole aligned "face", as published, or what of "mask" is face
    match_skin: bool = False  # inference: bring the broad colours of what was generated to those of the source; False: as published


@dataclass
class VideoMAEConfig:
    """Sizes of the video network that judges motion (VideoMAE v2; the defaults are ViT-g/14)."""

    image_size: int = 224
    patch_size: int = 14
    num_frames: int = 16
    tubelet_size: int = 2
    width: int = 1408
    depth: int = 40
    num_heads: int = 16
    hidden: int = 6144  # width inside the feed-forward layers


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
            1,
            [32, 64, 128, 256, 512, 1024, 2048],
            [[2, 1], 2, 2, 1, 2, 2, [2, 3]],
            [0, 0, 0, 1, 1, 0, 0],
        )
    )
    visual_encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(
            48,
            [64, 128, 256, 256, 512, 1024, 2048, 2048],
            [[1, 2], 2, 2, 2, 2, 2, 2, 2],
            [0, 0, 0, 0, 1, 1, 0, 0],
        )
    )


@dataclass
class SyncNetDataConfig(TrainingDataConfig):
    """What SyncNet looks at."""

    resolution: int = 256  # side of the aligned face, pixels
    num_frames: int = 16
    latent_space: bool = False  # look at latents of the autoencoder instead of pixels
    lower_half: bool = True  # look at the lower half of the face
    batch_size: int = 256


@dataclass
class SyncNetRunConfig(RunConfig):
    """... for SyncNet."""

    seed: int = 42
    loss_weights: dict[str, float] = field(default_factory=lambda: {"sync": 1.0, "mouth": 0.0, "contrast": 0.0})
    chance_steps: int = 2000  # steps after which a loss that still sits at chance level is worth a warning


@dataclass
class SyncNetWeightsConfig:
    """Files of the networks that SyncNet's training needs."""

    vae: Path | None = None  # for latents only


@dataclass
class SyncNetConfig:
    """One SyncNet and how it is trained."""

    data: SyncNetDataConfig = field(default_factory=SyncNetDataConfig)
    model: SyncNetModelConfig = field(default_factory=SyncNetModelConfig)
    weights: SyncNetWeightsConfig = field(default_factory=SyncNetWeightsConfig)
    run: SyncNetRunConfig = field(default_factory=SyncNetRunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)
