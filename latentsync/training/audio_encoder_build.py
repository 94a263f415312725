"""The audio encoder's configuration to what its training needs."""

import logging
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from whisper.model import ModelDimensions

from latentsync.audio_encoder_config import AudioEncoderConfig, AudioEncoderDataConfig, AudioEncoderModelConfig
from latentsync.data.catalog import Catalog
from latentsync.data.loader import fixed_batches
from latentsync.data.speech_dataset import SpeechDataset, Vocabulary, open_recordings, read_vocabulary
from latentsync.errors import ConfigError, InputError, WeightsError
from latentsync.training.audio_encoder_step import AudioEncoderStep, AudioEncoderTrainee, AudioEncoderValidator, whisper_publisher
from latentsync.training.build import clip_namer, seed_everything, start_weights
from latentsync.training.parts import Parts
from latentsync.training.syncnet_build import mouth_scale
from latentsync.weights import read_checkpoint

logger = logging.getLogger(__name__)

BANDS = 80  # of the log-mel: as many as Whisper's smaller models hear


def build_audio_encoder(config: AudioEncoderConfig, accelerator: Accelerator) -> Parts:
    """Everything that the audio encoder's training needs.

    Raises:
        InputError, ConfigError, WeightsError: recordings or weights cannot be used, in one sentence.
    """
    data, run, context = config.data, config.run, config.model.n_audio_ctx
    train, held_out = open_speech(data)
    vocabulary = read_vocabulary(train.clips[0].path)

    def dataset(catalog: Catalog, is_varied: bool) -> SpeechDataset:
        return SpeechDataset(catalog, vocabulary, context=context, seed=run.seed, is_varied=is_varied)

    seed_everything(run, accelerator)
    dims = dimensions(config.model, vocabulary)
    trainee = AudioEncoderTrainee(dims, mouth_scale(train))
    if (start := start_weights(config.ckpt, data)) is not None:
        load_start(trainee, start)
    validators = []
    if held_out is not None:
        rank, world = accelerator.process_index, accelerator.num_processes
        batches = fixed_batches(dataset(held_out, False), run.num_val_clips, data.batch_size, rank, world, data.num_workers)
        validators.append(AudioEncoderValidator(batches))
    return Parts(
        model=trainee,
        step=AudioEncoderStep(run.loss_weights),
        dataset=dataset(train, True),
        num_clips=len(train),
        publish=whisper_publisher(dims, vocabulary.symbols),
        clip_name=clip_namer(train),
        validators=validators,
    )


def open_speech(data: AudioEncoderDataConfig) -> tuple[Catalog, Catalog | None]:
    """The recordings to train on, and the held-out ones where there are any.

    Raises ConfigError where none are named, InputError where none can be used or one stands on both sides.
    """
    if data.train_data_dir is None:
        raise ConfigError("No speech to train on is named: set data.train_data_dir to a folder of recordings.")
    train = open_recordings(data.train_data_dir)
    if data.val_data_dir is None:
        logger.warning("No held-out speech is named (data.val_data_dir): nothing will show whether what is learnt holds for other voices.")
        return train, None
    held_out = open_recordings(data.val_data_dir)
    common = {clip.path for clip in train.clips} & {clip.path for clip in held_out.clips}
    if common:
        raise InputError(
            f"{len(common)} recordings, such as {min(common)}, are both trained on and held out: take them out of one of the two."
        )
    return train, held_out


def dimensions(model: AudioEncoderModelConfig, vocabulary: Vocabulary) -> ModelDimensions:
    """Whisper's sizes: an encoder, and a decoder without blocks whose tokens are the phones."""
    return ModelDimensions(
        n_mels=BANDS,
        **asdict(model),
        n_vocab=len(vocabulary.symbols),
        n_text_ctx=1,
        n_text_state=model.n_audio_state,
        n_text_head=model.n_audio_head,
        n_text_layer=0,
    )


def load_start(trainee: AudioEncoderTrainee, path: Path) -> None:
    """Begin with the weights of an encoder that this training has published. Raises WeightsError."""
    published = read_checkpoint(path)
    weights = published.get("model_state_dict", {})
    own = {name: value for name, value in trainee.state_dict().items() if name.startswith(("encoder.", "decoder."))}
    if weights.keys() != own.keys() or any(weights[name].shape != value.shape for name, value in own.items()):
        raise WeightsError(f"{path} holds another audio encoder than the configuration describes: set model to its sizes.")
    trainee.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
