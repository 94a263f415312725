"""The mouth reader's configuration to what its training needs."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from latentsync.data.catalog import Catalog
from latentsync.data.degrade import LARGEST_SCALE, LARGEST_SHIFT
from latentsync.data.loader import fixed_batches
from latentsync.data.mouth_dataset import MouthDataset, read_points
from latentsync.models.mouth_reader import Mouth, MouthReader, measure, published
from latentsync.mouth_reader_config import MouthReaderConfig
from latentsync.training.build import cache_folder, clip_namer, open_catalogs, seed_everything, start_weights
from latentsync.training.history import History
from latentsync.training.mouth_reader_step import MouthReaderStep, MouthReaderValidator, MouthScale
from latentsync.training.parts import Parts
from latentsync.weights import load_strict, read_state_dict

logger = logging.getLogger(__name__)

SCALE_CLIPS = 64  # clips whose mouths say how much points, gaps and widths vary
FRAMES_COMPARED = 24  # faces of each held-out clip that are looked at, spread over the clip
LEAST_DEVIATION = 0.005  # of the face's side: mouths that hardly open are not blown up
CLIPS_AT_ONCE = 4  # held-out clips in one pass


def build_mouth_reader(config: MouthReaderConfig, accelerator: Accelerator, show_progress: bool = True) -> Parts:
    """Everything that the mouth reader's training needs.

    Raises:
        InputError, ConfigError, WeightsError: clips or weights cannot be used, in one sentence.
    """
    data, run = config.data, config.run
    train, held_out = open_catalogs(data, data.num_frames, accelerator, show_progress)
    faces = cache_folder(data) if data.cache_faces else None
    seed_everything(run, accelerator)
    scale = mouth_scale(train)
    reader = MouthReader(config.model, scale.mean, scale.deviation.points)
    if (start := start_weights(config.ckpt, data)) is not None:
        load_strict(reader, read_state_dict(start)[0], start, "name the sizes that it was trained with")
    logger.info("Training %.2f million parameters", sum(part.numel() for part in reader.parameters()) / 1e6)
    validators = []
    for degraded in (False, True):
        if held_out is not None:
            dataset = MouthDataset(held_out, num_frames=FRAMES_COMPARED, seed=run.seed, drawn=False, degraded=degraded, faces_cache=faces)
            rank, world = accelerator.process_index, accelerator.num_processes
            batches = fixed_batches(dataset, run.num_val_clips, CLIPS_AT_ONCE, rank, world, data.num_workers)
            validators.append(MouthReaderValidator(batches, degraded))

    def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
        return published(config.model, dict(weights), step)

    return Parts(
        model=reader,
        step=MouthReaderStep(scale, run.loss_weights),
        dataset=MouthDataset(train, num_frames=data.num_frames, seed=run.seed, faces_cache=faces),
        num_clips=len(train.clips),
        publish=publish,
        clip_name=clip_namer(train),
        validators=validators,
    )


def mouth_scale(catalog: Catalog) -> MouthScale:
    """What is read off the first clips, and how much it varies as they are and by being moved about. Raises InputError."""
    points = torch.from_numpy(np.concatenate([read_points(clip.path) for clip in catalog.clips[:SCALE_CLIPS]]))  # n 20 2
    mouths = measure(points)
    shift, scale = LARGEST_SHIFT / 2, math.log(LARGEST_SCALE) / math.sqrt(3)  # standard deviations of what `degrade` does
    moved = (points.var(0, correction=0) + shift**2).sqrt()
    sizes = ((size.var(correction=0) + (scale * size.mean()) ** 2).sqrt() for size in (mouths.gap, mouths.width))
    return MouthScale(points.mean(0), Mouth(moved, *(size.clamp(min=LEAST_DEVIATION) for size in sizes)))
