"""Training of the small audio encoder: configuration, speech data, step."""

import json
import logging
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor, nn
from whisper.audio import log_mel_spectrogram
from whisper.model import ModelDimensions, Whisper

from embedded.landmarks import pearson
from latentsync.config import Rule, RunConfig, TrainingConfig, TrainingDataConfig, at_least, enforce, multiple_of, read_config, shared_rules
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS, WHISPER_HOP_LENGTH, WHISPER_MEL_PER_STEP, WHISPER_STEPS_PER_SECOND
from latentsync.data.clip_index import Catalog, ClipInfo, sidecar
from latentsync.data.sampling import Batch, ClipDataset
from latentsync.errors import InputError, WeightsError
from latentsync.media.audio import FULL_SCALE
from latentsync.media.files import walk_media
from latentsync.published_config import NOT_PUBLISHED
from latentsync.training.logging import History
from latentsync.training.syncnet import mouth_scale
from latentsync.training.trainer import (
    BatchValidator,
    Losses,
    TrainingTask,
    ValidationSum,
    held_out_batches,
    open_catalogs,
    seed_everything,
    start_weights,
)
from latentsync.weights import read_checkpoint
from scripts.train_unet import parse_arguments, train_command

logger = logging.getLogger(__name__)

LEAST_CONTEXT = 50  # steps: one second


@dataclass
class AudioEncoderDataConfig(TrainingDataConfig):
    """Folders of recordings with phones and mouth movements."""

    batch_size: int = 8  # segments as long as the encoder's context


@dataclass
class AudioEncoderModelConfig:
    """Sizes of the encoder, by Whisper's names; everything else about it is fixed by its file format."""

    n_audio_ctx: int = 1500  # steps (20 ms) of a context
    n_audio_state: int = 128  # width of an audio token
    n_audio_head: int = 4
    n_audio_layer: int = 3


@dataclass
class AudioEncoderRunConfig(RunConfig):
    """Steps and losses."""

    loss_weights: dict[str, float] = field(default_factory=lambda: {"phone": 1.0, "mouth": 1.0, "scale": 0.1})


@dataclass
class AudioEncoderConfig(TrainingConfig):
    """One audio encoder and how it is trained."""

    data: AudioEncoderDataConfig = field(default_factory=AudioEncoderDataConfig)
    model: AudioEncoderModelConfig = field(default_factory=AudioEncoderModelConfig)
    run: AudioEncoderRunConfig = field(default_factory=AudioEncoderRunConfig)


def load_audio_encoder_config(path: Path | str, overrides: Sequence[str] = ()) -> AudioEncoderConfig:
    """Read the configuration of an audio encoder's training; see `latentsync.config.load_config`. Raises ConfigError."""
    config, source = read_config(AudioEncoderConfig, NOT_PUBLISHED, path, overrides)
    data, model = config.data, config.model
    unused = "left out: speech is read from data.train_data_dir and data.val_data_dir as it is"
    rules = [
        *at_least(LEAST_CONTEXT, "model", model, "n_audio_ctx"),
        *at_least(1, "model", model, "n_audio_head", "n_audio_layer"),
        Rule("model.n_audio_state", model.n_audio_state >= 4 and model.n_audio_state % 2 == 0, "an even number, 4 or more"),
        *multiple_of("model", model, "n_audio_state", "n_audio_head"),
        *(
            Rule(f"data.{name}", not getattr(data, name), unused)
            for name in ("train_fileslist", "val_fileslist", "cache_dir", "cache_faces")
        ),
        *shared_rules(config),
    ]
    enforce(config, rules, source)
    return config


# Audio segments and their augmentation

UNLABELLED = -100  # phone of steps without sound: cross-entropy passes them over
SILENCE = 0  # index of silence among the phones
STEP = WHISPER_HOP_LENGTH * WHISPER_MEL_PER_STEP  # samples in a step
_SHORT_SHARE = 0.5  # of segments that end before the context does, as most recordings do
_SHORTEST = 1.0  # s
_EXCERPT = 2.0  # s of a recording that are taken at least
_SPEEDS = np.arange(36, 45)  # fortieths: 0.9 to 1.1 times as fast
_SPEED_PARTS = 40
_FADE = 0.01  # s at either end of an excerpt
_UNSURE = 5  # steps around a joint whose mouth is unknown: it moves towards what was cut off
_LONG_PAUSE_SHARE = 0.06
_LOUDER = 0.5  # log10 units: how much louder the rest of a long recording may be than the segment


@dataclass(frozen=True)
class Recording:
    """Speech with phones and mouth movements."""

    samples: np.ndarray  # float32 t, in [-1, 1]
    phones: np.ndarray  # int64 p
    phone_ends: np.ndarray  # float64 p, s
    mouth: np.ndarray  # float32 n k: channels of every video frame
    rest: np.ndarray  # float32 k: the mouth while nobody speaks

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / AUDIO_SAMPLE_RATE

    def labels(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Phones (int64 s) and mouth (float32 s k) at these times (s)."""
        place = np.searchsorted(self.phone_ends, times, side="right").clip(0, len(self.phones) - 1)
        where = (times * VIDEO_FPS - 0.5).clip(0, len(self.mouth) - 1)  # a frame tells the mean over its exposure: its middle
        before = where.astype(int).clip(0, max(len(self.mouth) - 2, 0))
        after = np.minimum(before + 1, len(self.mouth) - 1)
        share = (where - before).astype(np.float32)[:, None]
        return self.phones[place], (1 - share) * self.mouth[before] + share * self.mouth[after]


@dataclass(frozen=True)
class Segment:
    """Sound with phone and mouth of every step (20 ms)."""

    samples: np.ndarray  # float32, STEP for each step
    phones: np.ndarray  # int64 s
    mouth: np.ndarray  # float32 s k; no number where it is unknown


def first_segment(recording: Recording, context: int) -> Segment:
    """The beginning of a recording, as much as a context of so many steps holds."""
    steps = min(len(recording.samples) // STEP, context)
    phones, mouth = recording.labels(np.arange(steps) / WHISPER_STEPS_PER_SECOND)
    return Segment(recording.samples[: steps * STEP], phones, mouth)


def random_segment(rng: np.random.Generator, recordings: Iterator[Recording], context: int) -> Segment:
    """Excerpts of several recordings with pauses between them, in half of all cases shorter than the context."""
    steps = context
    if rng.random() < _SHORT_SHARE:
        shortest = min(round(_SHORTEST * WHISPER_STEPS_PER_SECOND), context)
        steps = int(np.exp(rng.uniform(np.log(shortest), np.log(context))))
    recording = next(recordings)
    segment = Segment(np.zeros(steps * STEP, np.float32), np.full(steps, SILENCE), np.tile(recording.rest, (steps, 1)))
    clock = _pause(rng) if rng.random() < 0.5 else 0
    while clock < steps:
        clock += _insert_excerpt(rng, segment, recording, clock) + _pause(rng)
        recording = next(recordings) if clock < steps else recording
    return Segment(_equalise(rng, segment.samples), segment.phones, segment.mouth)


def _pause(rng: np.random.Generator) -> int:
    """Steps of silence between two excerpts."""
    seconds = rng.uniform(2, 6) if rng.random() < _LONG_PAUSE_SHARE else rng.exponential(0.4)
    return int(seconds * WHISPER_STEPS_PER_SECOND)


def _insert_excerpt(rng: np.random.Generator, segment: Segment, recording: Recording, clock: int) -> int:
    """Put an excerpt of a recording, a little faster or slower, into a segment from step `clock` on; the steps that it takes."""
    up, speed = _SPEED_PARTS, int(rng.choice(_SPEEDS))
    whole = int(recording.seconds * WHISPER_STEPS_PER_SECOND)  # steps, of the recording as it is
    taken = int(rng.integers(min(round(_EXCERPT * WHISPER_STEPS_PER_SECOND), whole), whole + 1))
    begin = int(rng.integers(whole - taken + 1))
    samples = recording.samples[begin * STEP : (begin + taken) * STEP]
    samples = samples if speed == up else resample_poly(samples, up, speed).astype(np.float32)
    steps = min(len(samples) // STEP, len(segment.phones) - clock)
    samples = samples[: steps * STEP] * np.float32(10 ** (rng.uniform(-6, 6) / 20))
    fade = min(round(_FADE * AUDIO_SAMPLE_RATE), len(samples))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    samples[:fade] *= ramp
    samples[len(samples) - fade :] *= ramp[::-1]
    times = (begin + np.arange(steps) * (speed / up)) / WHISPER_STEPS_PER_SECOND
    segment.samples[clock * STEP : (clock + steps) * STEP] = samples
    segment.phones[clock : clock + steps], segment.mouth[clock : clock + steps] = recording.labels(times)
    for joint in (clock, clock + steps):
        if 0 < joint < len(segment.phones):
            segment.mouth[max(joint - _UNSURE, 0) : joint + _UNSURE] = np.nan
    return steps


def _equalise(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """Change equalisation and level by a few dB; add noise in half of all cases."""
    length = next_fast_len(len(samples), real=True)
    octave = np.log2(np.maximum(rfftfreq(length, 1 / AUDIO_SAMPLE_RATE), 60.0).astype(np.float32) / 1000)
    decibels = sum(np.float32(rng.uniform(-2.5, 2.5)) * np.cos(rate * octave + np.float32(rng.uniform(0, 6.3))) for rate in (0.5, 1.0, 2.0))
    spectrum = rfft(samples, length) * 10 ** (decibels / 20)
    if rng.random() < 0.5:
        noise = rng.standard_normal((2, len(octave)), np.float32) * np.exp2(-octave * np.float32(rng.uniform(0, 1)))
        ratio = 10 ** (rng.uniform(12, 55) / 20)
        scale = np.linalg.norm(spectrum) / max(np.linalg.norm(noise) * ratio, 1e-9)
        spectrum += np.complex64(scale) * (noise[0] + 1j * noise[1])
    equalised = irfft(spectrum, length)[: len(samples)]
    gain = min(10 ** (rng.uniform(-12, 12) / 20), 0.99 / max(float(np.abs(equalised).max()), 1e-6))
    return (equalised * gain).astype(np.float32)


def whisper_mel(samples: np.ndarray) -> Tensor:
    """The normalised log-mel of a recording: float32 80 t, as `latentsync.whisper.audio2feature.LogMel` computes it."""
    return log_mel_spectrogram(torch.from_numpy(samples))


def augment(rng: np.random.Generator, mel: Tensor, context: int) -> Tensor:
    """A log-mel (m t) as if a long recording were louder elsewhere, with spans of time and of pitch masked (SpecAugment,
    arXiv 1904.08779)."""
    bands, columns = mel.shape
    if columns == context * WHISPER_MEL_PER_STEP and rng.random() < 0.5:
        mel = torch.clamp(mel, min=float(mel.max()) + (rng.uniform(0, _LOUDER) - 8) / 4)
    mel, mean = mel.clone(), float(mel.mean())
    for _ in range(rng.poisson(columns / 500)):  # one in five seconds
        width = int(rng.integers(1, 21))
        start = int(rng.integers(max(columns - width, 1)))
        mel[:, start : start + width] = mean
    for _ in range(int(rng.integers(3))):
        width = int(rng.integers(1, 11))
        start = int(rng.integers(bands - width))
        mel[start : start + width] = mean
    return mel


def pad_segment(mel: Tensor, segment: Segment, context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-mel (m 2c), phones (c) and mouth (c k) of a whole context: beyond the sound zeros, as in inference, and no labels."""
    missing = context - len(segment.phones)
    phones = F.pad(torch.from_numpy(segment.phones), (0, missing), value=UNLABELLED)
    mouth = F.pad(torch.from_numpy(segment.mouth), (0, 0, 0, missing), value=float("nan"))
    return F.pad(mel, (0, context * WHISPER_MEL_PER_STEP - mel.shape[1])), phones, mouth


# Data: recordings and their labels

SHORTEST = 0.5  # s: recordings below this are left out
_NO_PICTURES = 1  # resolution of faces, which this dataset does not read
_ADVICE = "record speech with `python -m embedded.talking_heads speech`"


@dataclass(frozen=True)
class SpeechBatch(Batch):
    """Segments of speech as long as the encoder's context of t steps."""

    mel: Tensor  # float32 b 80 2t: normalised log-mel; zeros where a segment has ended
    phones: Tensor  # int64 b t: index of the phone; UNLABELLED where a segment has ended
    mouth: Tensor  # float32 b t k: mouth channels; no number where they are unknown


@dataclass(frozen=True)
class Vocabulary:
    """Names of the phones and mouth channels."""

    symbols: tuple[str, ...]  # phones; the first is silence
    channels: tuple[str, ...]  # of the mouth


def open_recordings(folder: Path | None) -> Catalog:
    """All recordings of a folder and the folders below: .wav files (16 kHz, mono, 16 bit) with their .json beside them.

    Raises InputError where there is none.
    """
    if folder is None:
        raise InputError("there is nothing to train on: give data.train_data_dir, a folder of recordings")
    clips, rejected = [], {}
    for path in walk_media(folder, (".wav",)):
        try:
            seconds = len(_read_wave(path)) / AUDIO_SAMPLE_RATE
        except InputError as error:
            rejected[path] = str(error)
            continue
        if not sidecar(path).is_file():
            rejected[path] = f"{path} has no {sidecar(path).name} beside it"
        elif seconds < SHORTEST:
            rejected[path] = f"{path} is {seconds:.2f} s long, not {SHORTEST} or more"
        else:
            clips.append(ClipInfo(path, int(seconds * VIDEO_FPS), seconds, mouth=True))
    first = next(iter(rejected.values()), None)
    if not clips:
        raise InputError(f"{folder} holds no recording of speech{f' that can be used ({first})' if first else ''}: {_ADVICE}")
    if rejected:
        logger.warning("%s: %d of %d recordings are left out, such as: %s", folder, len(rejected), len(rejected) + len(clips), first)
    return Catalog(tuple(clips), rejected)


def read_vocabulary(path: Path) -> Vocabulary:
    """The phones and mouth channels of a recording's labels. Raises InputError."""
    return _read_labels(path)[1]


def read_recording(path: Path, vocabulary: Vocabulary) -> Recording:
    """A recording with its labels. Raises InputError where it is damaged, or has other phones or channels."""
    content, own = _read_labels(path)
    if own != vocabulary:
        raise InputError(f"{path} has other phones or mouth channels than the other recordings: {_ADVICE} anew")
    samples = _read_wave(path).astype(np.float32) / np.float32(FULL_SCALE)
    try:
        index = {symbol: place for place, symbol in enumerate(vocabulary.symbols)}
        recording = Recording(
            samples=samples,
            phones=np.array([index[symbol] for symbol, _, _ in content["said"]["phones"]], np.int64),
            phone_ends=np.array([end for _, _, end in content["said"]["phones"]], np.float64),
            mouth=np.array(content["mouth"]["values"], np.float32),
            rest=np.array(content["mouth"]["rest"], np.float32),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sidecar(path)} does not hold phones and mouth ({type(error).__name__}): {_ADVICE} anew") from None
    channels = (len(vocabulary.channels),)
    if not len(recording.phones) or recording.mouth.shape[1:] != channels or recording.rest.shape != channels:
        raise InputError(f"{sidecar(path)} holds no phones, or not {channels[0]} mouth channels: {_ADVICE} anew")
    return recording


def _read_labels(path: Path) -> tuple[dict, Vocabulary]:
    """The .json beside a recording. Raises InputError."""
    try:
        content = json.loads(sidecar(path).read_bytes())
        return content, Vocabulary(tuple(content["symbols"]), tuple(content["mouth"]["channels"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sidecar(path)} does not list phones and mouth channels ({type(error).__name__}): {_ADVICE} anew") from None


def _read_wave(path: Path) -> np.ndarray:
    """Samples int16 t of a wave file, read from the disk when they are used. Raises InputError for what is not 16 kHz mono."""
    try:
        rate, samples = wavfile.read(path, mmap=True)
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{path} cannot be read ({error}): record it again") from None
    if (rate, samples.ndim, samples.dtype) != (AUDIO_SAMPLE_RATE, 1, np.int16):
        raise InputError(f"{path} is no recording at {AUDIO_SAMPLE_RATE} Hz, mono, 16 bit: {_ADVICE}")
    return samples


class SpeechDataset(ClipDataset[SpeechBatch]):
    """Segments as long as the encoder's context (20 ms steps): joined, augmented excerpts where `is_varied`, else one recording's start."""

    batch_type = SpeechBatch

    def __init__(self, catalog: Catalog, vocabulary: Vocabulary, *, context: int, seed: int, is_varied: bool) -> None:
        super().__init__(catalog, num_frames=1, resolution=_NO_PICTURES, seed=seed)
        self.vocabulary, self.context, self.is_varied = vocabulary, context, is_varied

    def sample(self, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> dict[str, Tensor | None]:
        first = read_recording(clip.path, self.vocabulary)
        if self.is_varied:
            segment = random_segment(rng, self._recordings(first, rng, problems), self.context)
            mel = augment(rng, whisper_mel(segment.samples), self.context)
        else:
            segment = first_segment(first, self.context)
            mel = whisper_mel(segment.samples)
        return dict(zip(("mel", "phones", "mouth"), pad_segment(mel, segment, self.context), strict=True))

    def _recordings(self, first: Recording, rng: np.random.Generator, problems: list[str]) -> Iterator[Recording]:
        """The first recording and then, without end, others by chance; the first again in place of one that cannot be read."""
        yield first
        while True:
            path = self.catalog.clips[int(rng.integers(len(self)))].path
            try:
                recording = read_recording(path, self.vocabulary)
            except InputError as error:
                problems.append(f"{error} (another one is used instead)")
                recording = first
            yield recording


# Network

PHONE, MOUTH, SCALE = "phone", "mouth", "scale"
_FIRST_LOGITS = 0.02  # standard deviation of the phone classifier's first weights
_PUBLISHED = ("encoder.", "decoder.")  # prefixes of Whisper's own weights among the trainee's


class AudioEncoderOutput(NamedTuple):
    """Hidden states, and what is predicted from them."""

    states: list[Tensor]  # b t d each: the embedded input and the state behind every block, which is what the denoiser reads
    phones: Tensor  # b t v: logits
    mouths: list[Tensor]  # b t k each, standardised: predicted by a linear layer from each state


class AudioEncoderTrainee(nn.Module):
    """Whisper's encoder with a classifier of phones, and linear predictions of the mouth at every depth.

    The phone classifier takes the place of Whisper's decoder, which has no blocks: logits are the normed output against the
    embeddings of the phones. So the published file holds nothing that was not trained. The layers of the mouth are not published.

    Args:
        dims: sizes; n_vocab is the number of phones, n_text_layer 0.
        mouth_scale: mean and standard deviation of each mouth channel (2 k).
    """

    def __init__(self, dims: ModelDimensions, mouth_scale: Tensor) -> None:
        super().__init__()
        whisper = Whisper(dims)
        self.dims = dims
        self.encoder, self.decoder = whisper.encoder, whisper.decoder
        nn.init.normal_(self.decoder.token_embedding.weight, std=_FIRST_LOGITS)
        nn.init.zeros_(self.decoder.positional_embedding).requires_grad_(False)
        width, channels = dims.n_audio_state, mouth_scale.shape[1]
        self.mouths = nn.ModuleList(nn.Linear(width, channels) for _ in range(1 + dims.n_audio_layer))
        for layer in self.mouths:
            nn.init.zeros_(layer.weight)  # begins with the constant guess
            nn.init.zeros_(layer.bias)
        self.register_buffer("mean", mouth_scale[0].float().clone())
        self.register_buffer("deviation", mouth_scale[1].float().clone())

    def forward(self, mel: Tensor) -> AudioEncoderOutput:
        """Normalised log-mel b m 2t -> states, phones and mouths of t steps; the states are those of `Audio2Feature`."""
        encoder = self.encoder
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)  # b t d
        states = [x + encoder.positional_embedding]  # in float32 however the blocks compute, as in use
        for block in encoder.blocks:
            states.append(block(states[-1]))
        logits = self.decoder.ln(encoder.ln_post(states[-1])) @ self.decoder.token_embedding.weight.T
        return AudioEncoderOutput(states, logits, [layer(state) for layer, state in zip(self.mouths, states, strict=True)])

    def standardised(self, mouth: Tensor) -> Tensor:
        """True mouth channels with mean 0 and standard deviation 1 each."""
        return (mouth - self.mean) / self.deviation


# Losses and validation


class AudioEncoderStep:
    """Cross-entropy of the phones, squared error of the standardised mouth at all depths, and the excess of the states over 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.names = [name for name, weight in weights.items() if weight > 0]

    def __call__(self, trainee: nn.Module, batch: SpeechBatch) -> Losses:
        """The losses of a batch, each a scalar."""
        output = trainee(batch.mel)
        owner = getattr(trainee, "module", trainee)  # distributed training wraps the network
        losses = {}
        if PHONE in self.names:
            losses[PHONE] = F.cross_entropy(output.phones.flatten(0, 1).float(), batch.phones.flatten(), ignore_index=UNLABELLED)
        if MOUTH in self.names:
            mouth = owner.standardised(batch.mouth)  # b t k; NaN: unknown
            known = ~mouth.isnan().any(-1)  # b t
            losses[MOUTH] = torch.stack([F.mse_loss(guess[known].float(), mouth[known]) for guess in output.mouths]).mean()
        if SCALE in self.names:
            outgrown = [(square - 1).clamp(min=0) for square in mean_squares(output.states, batch.phones)]
            losses[SCALE] = torch.stack(outgrown).mean()
        return losses


def mean_squares(states: Sequence[Tensor], phones: Tensor) -> list[Tensor]:
    """Mean square of the states at each depth, over the labelled steps (b t)."""
    there = phones != UNLABELLED
    return [state[there].float().square().mean() for state in states]


class AudioEncoderValidator(BatchValidator):
    """Phone accuracy and mouth correlation on held-out recordings."""

    name = "held-out voices"

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
        """Both losses; accuracy of the phones; correlation of the mouth; and the mean square of the largest states."""
        sums: dict[str, float] = {}
        count = 0
        guesses: list[list[Tensor]] = [[] for _ in range(1 + model.dims.n_audio_layer)]
        references: list[Tensor] = []
        for batch in self.batches_for(model):
            output, there = model(batch.mel), batch.phones != UNLABELLED
            logits, phones, size = output.phones[there].float(), batch.phones[there], int(there.sum())
            values = {
                PHONE: F.cross_entropy(logits, phones),
                "accuracy": (logits.argmax(-1) == phones).float().mean(),
                "largest_square": torch.stack(mean_squares(output.states, batch.phones)).max(),
            }
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
            count += size
            references.append(model.standardised(batch.mouth)[there].cpu())
            for depth, guess in enumerate(output.mouths):
                guesses[depth].append(guess[there].float().cpu())
        tallies = {name: ValidationSum(total, count, is_share=name == "accuracy") for name, total in sums.items()}
        return tallies | mouth_measures([torch.cat(parts) for parts in guesses], torch.cat(references)) if count else {}


def mouth_measures(guesses: Sequence[Tensor], reference: Tensor) -> dict[str, ValidationSum]:
    """How well all depths (n k each) predict the known mouth (n k; NaN: unknown).

    The mean squared error of all depths; and the correlation, mean over the channels, of the first and the last depth.
    """
    known = ~reference.isnan().any(-1)
    reference, count = reference[known], int(known.sum())
    found = {
        MOUTH: torch.stack([F.mse_loss(guess[known], reference) for guess in guesses]).mean(),
        "mouth_r_first": pearson(guesses[0][known].T, reference.T).mean(),
        "mouth_r_last": pearson(guesses[-1][known].T, reference.T).mean(),
    }
    return {name: ValidationSum(float(value) * count, count) for name, value in found.items()}


# Building the training, and the command

BANDS = 80  # of the log-mel: as in Whisper's smaller models


def build_audio_encoder(config: AudioEncoderConfig, accelerator: Accelerator, show_progress: bool = True) -> TrainingTask:
    """Everything that the audio encoder's training needs. Raises InputError, ConfigError, WeightsError."""
    data, run, context = config.data, config.run, config.model.n_audio_ctx
    trained, held_out = open_catalogs(data, 0, accelerator, show_progress, open_clips=lambda folder, *_, **__: open_recordings(folder))
    vocabulary = read_vocabulary(trained.clips[0].path)

    def dataset(catalog: Catalog, is_varied: bool) -> SpeechDataset:
        return SpeechDataset(catalog, vocabulary, context=context, seed=run.seed, is_varied=is_varied)

    seed_everything(run, accelerator)
    dims = ModelDimensions(
        n_mels=BANDS,
        **asdict(config.model),
        n_vocab=len(vocabulary.symbols),  # Whisper's tokens are the phones here
        n_text_ctx=1,
        n_text_state=config.model.n_audio_state,
        n_text_head=config.model.n_audio_head,
        n_text_layer=0,  # a decoder without blocks
    )
    trainee = AudioEncoderTrainee(dims, mouth_scale(trained))
    if (start := start_weights(config.ckpt, data)) is not None:
        load_start(trainee, start)
    held_out_data = None if held_out is None else held_out_batches(dataset(held_out, False), config, accelerator)

    def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
        own = {name: value.half() for name, value in weights.items() if name.startswith(_PUBLISHED)}
        return {"dims": asdict(dims), "model_state_dict": own, "global_step": step, "phones": list(vocabulary.symbols)}

    return TrainingTask(
        model=trainee,
        step=AudioEncoderStep(run.loss_weights),
        dataset=dataset(trained, True),
        publish=publish,
        validators=[] if held_out_data is None else [AudioEncoderValidator(held_out_data)],
    )


def load_start(trainee: AudioEncoderTrainee, path: Path) -> None:
    """Begin with the weights of an encoder that this training has published. Raises WeightsError."""
    published = read_checkpoint(path)
    weights = published.get("model_state_dict", {})
    own = {name: value for name, value in trainee.state_dict().items() if name.startswith(_PUBLISHED)}
    if weights.keys() != own.keys() or any(weights[name].shape != value.shape for name, value in own.items()):
        raise WeightsError(f"{path} holds another audio encoder than the configuration describes: set model to its sizes.")
    trainee.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)


DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "audio_encoder.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train an audio encoder of Whisper's architecture on speech whose phones and mouth movements are known."
    return train_command(
        parse_arguments("python -m embedded.audio_encoder", description, DEFAULT_CONFIG, arguments),
        load_audio_encoder_config,
        build_audio_encoder,
    )


if __name__ == "__main__":
    sys.exit(main())
