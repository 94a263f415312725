"""An autoencoder's configuration to what its training needs; and a trained one to a folder that the method uses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from safetensors.torch import save
from torch import Tensor

from latentsync.autoencoder_config import LEVELS, AutoencoderConfig, needs_critic
from latentsync.constants import LATENT_CHANNELS, LATENT_SCALE, RGB
from latentsync.data.catalog import Catalog
from latentsync.data.frames import open_video, resize_faces
from latentsync.data.loader import fixed_batches
from latentsync.data.picture_dataset import PictureDataset
from latentsync.errors import InputError, OutputError, WeightsError
from latentsync.faces.mask import to_pixels
from latentsync.media.files import staged, walk_media, write_json
from latentsync.models.patch_critic import PatchCritic
from latentsync.models.vae import WEIGHT_NAMES
from latentsync.training.autoencoder_step import AutoencoderStep, AutoencoderTrainee, AutoencoderValidator, publisher
from latentsync.training.build import cache_folder, clip_namer, open_catalogs, seed_everything, start_weights
from latentsync.training.parts import Parts
from latentsync.training_config import RunConfig
from latentsync.weights import load_strict, read_checkpoint, read_state_dict

RAMP_STEPS = 200  # steps over which the critic's opinion gains its full weight
LOG_VARIANCE = -6.0  # of an exported posterior: a standard deviation of 0.05 beside latents of 1 / LATENT_SCALE, about 5.5
FACES, SLICE = 128, 8  # faces that say how latents are spread, and how many of them are encoded at once
LEAST_SPREAD = 1e-4  # of a latent channel: one that never moves is left as it is
_HINT = "use a checkpoint of this training with the same model.block_out_channels and model.layers_per_block"


def build_autoencoder(config: AutoencoderConfig, accelerator: Accelerator, show_progress: bool = True) -> Parts:
    """Everything that the autoencoder's training needs.

    Raises:
        InputError, ConfigError, WeightsError: clips or weights cannot be used, in one sentence.
    """
    data, run = config.data, config.run
    train, held_out = open_catalogs(data, data.num_frames, accelerator, show_progress, data.resolution)
    cache = cache_folder(data) if data.cache_faces else None
    training_set = PictureDataset(
        train,
        num_frames=data.num_frames,
        resolution=data.resolution,
        crop=data.crop,
        seed=run.seed,
        general_share=data.general_share,
        masked_share=data.masked_share,
        mouth_weight=data.mouth_weight,
        faces_cache=cache,
    )
    seed_everything(run, accelerator)
    sizes = autoencoder_sizes(config)
    vae = AutoencoderKL.from_config(sizes)
    if (start := start_weights(config.ckpt, data)) is not None:
        load_strict(vae, read_state_dict(start)[0], start, _HINT)
    trainee = AutoencoderTrainee(vae, PatchCritic(config.model.critic_width) if needs_critic(config) else None)
    trainee.to(memory_format=torch.channels_last)  # twice as fast on a processor
    samples = data.batch_size * run.gradient_accumulation_steps * accelerator.num_processes  # in a step
    return Parts(
        model=trainee,
        step=AutoencoderStep(run.loss_weights, seed=run.seed, critic_start=run.critic_start * samples, critic_ramp=RAMP_STEPS * samples),
        dataset=training_set,
        num_clips=len(train.clips),
        publish=publisher(sizes),
        clip_name=clip_namer(train),
        validators=[] if held_out is None else [_validator(held_out, data.resolution, data.num_workers, run, accelerator)],
    )


def _validator(held_out: Catalog, resolution: int, num_workers: int, run: RunConfig, accelerator: Accelerator) -> AutoencoderValidator:
    """Looks at one whole face of each held-out clip."""
    faces = PictureDataset(held_out, num_frames=1, resolution=resolution, crop=resolution, seed=run.seed, varied=False)
    rank, world = accelerator.process_index, accelerator.num_processes
    return AutoencoderValidator(fixed_batches(faces, run.num_val_clips, SLICE, rank, world, num_workers))


def autoencoder_sizes(config: AutoencoderConfig) -> dict[str, Any]:
    """The config.json of the autoencoder, as diffusers reads it. Without attention, so that crops teach it all about whole faces."""
    model = config.model
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(model.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * LEVELS,
        "in_channels": RGB,
        "latent_channels": LATENT_CHANNELS,
        "layers_per_block": model.layers_per_block,
        "mid_block_add_attention": False,
        "norm_num_groups": model.norm_num_groups,
        "out_channels": RGB,
        "sample_size": config.data.resolution,
        "scaling_factor": LATENT_SCALE,
        "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
    }


def export_autoencoder(checkpoint: Path, folder: Path, clips: Path, dtype: torch.dtype = torch.float32) -> None:
    """A published checkpoint as a folder in the layout of diffusers, whose scaled latents have mean 0 and variance 1 in each channel.

    Args:
        checkpoint: a file of the training's folder of checkpoints.
        folder: gets config.json and the weights.
        clips: folder of clips of aligned faces: what the latents of are made to have that spread.
        dtype: what weights are stored in.

    Raises:
        WeightsError, InputError: the checkpoint or the clips cannot be used.
        OutputError: the folder cannot be written.
    """
    published = read_checkpoint(checkpoint)
    sizes, weights = published.get("config"), published.get("state_dict")
    if not isinstance(sizes, dict) or not isinstance(weights, dict):
        raise WeightsError(f"{checkpoint} is no checkpoint of an autoencoder's training: name a file of its folder of checkpoints.")
    vae = AutoencoderKL.from_config(sizes)
    load_strict(vae, weights, checkpoint, _HINT)
    normalise_latents(vae.eval(), some_faces(clips, sizes["sample_size"]))
    file = folder / WEIGHT_NAMES[0]
    with staged(file) as temporary:
        try:
            temporary.write_bytes(save({name: value.to(dtype).contiguous() for name, value in vae.state_dict().items()}))
        except OSError as error:
            raise OutputError(f"{file} cannot be written ({error.strerror}): free some space and run the same command again.") from None
    write_json(folder / "config.json", sizes)


def some_faces(clips: Path, resolution: int) -> Iterable[Tensor]:
    """Faces from the middle of clips spread over a folder, as pixels n 3 h w, some at a time. Raises InputError."""
    paths = list(walk_media(clips))
    if not paths:
        raise InputError(f"{clips} holds no clips: name a folder of clips of aligned faces.")
    chosen = paths[:: -(-len(paths) // FACES)]
    for start in range(0, len(chosen), SLICE):
        faces = []
        for path in chosen[start : start + SLICE]:
            with open_video(path) as reader:
                frame = torch.from_numpy(reader[len(reader) // 2].asnumpy())  # h w 3
            faces.append(resize_faces(frame[None], resolution))
        yield to_pixels(torch.cat(faces))


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, faces: Iterable[Tensor]) -> None:
    """Change the layers around the latents so that the scaled latents of `faces` (pixels n 3 h w) have mean 0 and variance 1 in each
    channel, and every posterior the same small variance; what is decoded from means stays as it was. In place."""
    means = torch.cat([vae.encode(part).latent_dist.mean.movedim(1, -1).flatten(0, -2) for part in faces])  # n 4
    centre, spread = means.mean(0), means.std(0)
    factor = torch.where(spread > LEAST_SPREAD, 1 / (LATENT_SCALE * spread), torch.ones_like(spread))
    before, after, channels = vae.quant_conv, vae.post_quant_conv, len(factor)
    before.weight[:channels] *= factor[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - centre) * factor
    before.weight[channels:] = 0
    before.bias[channels:] = LOG_VARIANCE
    after.bias += after.weight[:, :, 0, 0] @ centre  # computed with the weights that belong to latents as they were
    after.weight /= factor[:, None, None]
