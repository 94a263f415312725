"""The audio encoder's training: speech to phones and mouths, what it knows of held-out voices, its file in Whisper's format."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper

from latentsync.data.speech_dataset import SpeechBatch
from latentsync.data.speech_piece import UNLABELLED
from latentsync.training.feed import Problems
from latentsync.training.history import History
from latentsync.training.parts import Losses, Publish, Tally
from latentsync.training.statistics import pearson

PHONE, MOUTH, SCALE = "phone", "mouth", "scale"
_FIRST_LOGITS = 0.02  # standard deviation of the phone classifier's first weights
_PUBLISHED = ("encoder.", "decoder.")  # prefixes of Whisper's own weights among the trainee's


class Told(NamedTuple):
    """What an encoder makes of pieces of speech."""

    states: list[Tensor]  # b t d each: the embedded input and the state behind every block, which is what the denoiser reads
    phones: Tensor  # b t v: logits
    mouths: list[Tensor]  # b t k each, standardised: what a linear layer sees in each state


class AudioEncoderTrainee(nn.Module):
    """Whisper's encoder with two ways to ask what it hears: the phone, and the mouth at every depth.

    The phone classifier lives in the place of Whisper's decoder, whose blocks are none: logits are the normed output against the
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

    def forward(self, mel: Tensor) -> Told:
        """Normalised log-mel b m 2t -> states, phones and mouths of t steps; the states are those of `Audio2Feature`."""
        encoder = self.encoder
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)  # b t d
        states = [x + encoder.positional_embedding]  # in float32 however the blocks compute, as in use
        for block in encoder.blocks:
            states.append(block(states[-1]))
        logits = self.decoder.ln(encoder.ln_post(states[-1])) @ self.decoder.token_embedding.weight.T
        return Told(states, logits, [layer(state) for layer, state in zip(self.mouths, states, strict=True)])

    def standardised(self, mouth: Tensor) -> Tensor:
        """True mouth channels with mean 0 and standard deviation 1 each."""
        return (mouth - self.mean) / self.deviation


class AudioEncoderStep:
    """Cross-entropy of the phones, mean squared error of the standardised mouth at all depths, and how far the states outgrow 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.names = [name for name, weight in weights.items() if weight > 0]

    def __call__(self, trainee: nn.Module, batch: SpeechBatch) -> Losses:
        """The losses of a batch, each a scalar."""
        told = trainee(batch.mel)
        owner = getattr(trainee, "module", trainee)  # distributed training wraps the network
        losses = {}
        if PHONE in self.names:
            losses[PHONE] = F.cross_entropy(told.phones.flatten(0, 1).float(), batch.phones.flatten(), ignore_index=UNLABELLED)
        if MOUTH in self.names:
            losses[MOUTH] = torch.stack(mouth_errors(told, owner.standardised(batch.mouth))).mean()
        if SCALE in self.names:
            outgrown = [(square - 1).clamp(min=0) for square in mean_squares(told.states, batch.phones)]
            losses[SCALE] = torch.stack(outgrown).mean()
        return losses


def mouth_errors(told: Told, mouth: Tensor) -> list[Tensor]:
    """Mean squared error of what each depth tells against the true mouth (b t k, standardised; no number: unknown)."""
    known = ~mouth.isnan().any(-1)  # b t
    return [F.mse_loss(guess[known].float(), mouth[known]) for guess in told.mouths]


def mean_squares(states: Sequence[Tensor], phones: Tensor) -> list[Tensor]:
    """Mean square of the states at each depth, over the steps (b t) at which something is heard."""
    there = phones != UNLABELLED
    return [state[there].float().square().mean() for state in states]


class AudioEncoderValidator:
    """What the encoder knows of held-out recordings.

    Args:
        batches: gives the same batches, this process's share, every time it is called.
    """

    name = "held-out voices"

    def __init__(self, batches: Iterable[SpeechBatch]) -> None:
        self.batches = batches
        self._problems = Problems()

    def __call__(self, model: nn.Module, step: int) -> dict[str, Tally]:
        """Both losses; the share of steps whose phone is right; how well the mouth is told; and the mean square of the largest states."""
        device = next(model.parameters()).device
        sums: dict[str, float] = {}
        count = 0
        guesses: list[list[Tensor]] = [[] for _ in range(1 + model.dims.n_audio_layer)]
        truths: list[Tensor] = []
        for batch in self.batches:
            self._problems.tell(batch.problems)
            batch = batch.to(device)
            told, there = model(batch.mel), batch.phones != UNLABELLED
            logits, phones, size = told.phones[there].float(), batch.phones[there], int(there.sum())
            values = {
                PHONE: F.cross_entropy(logits, phones),
                "accuracy": (logits.argmax(-1) == phones).float().mean(),
                "largest_square": torch.stack(mean_squares(told.states, batch.phones)).max(),
            }
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
            count += size
            truths.append(model.standardised(batch.mouth)[there].cpu())
            for depth, guess in enumerate(told.mouths):
                guesses[depth].append(guess[there].float().cpu())
        tallies = {name: Tally(total, count, is_share=name == "accuracy") for name, total in sums.items()}
        return tallies | mouth_tallies([torch.cat(parts) for parts in guesses], torch.cat(truths)) if count else {}


def mouth_tallies(guesses: Sequence[Tensor], truth: Tensor) -> dict[str, Tally]:
    """How well the guesses of all depths (n k each) tell the true mouth (n k; no number: unknown).

    The mean squared error of all depths; and the correlation with the truth, mean over the channels, of the first and the last depth.
    """
    known = ~truth.isnan().any(-1)
    truth, count = truth[known], int(known.sum())
    found = {
        MOUTH: torch.stack([F.mse_loss(guess[known], truth) for guess in guesses]).mean(),
        "mouth_r_first": pearson(guesses[0][known].T, truth.T).mean(),
        "mouth_r_last": pearson(guesses[-1][known].T, truth.T).mean(),
    }
    return {name: Tally(float(value) * count, count) for name, value in found.items()}


def whisper_publisher(dims: ModelDimensions, symbols: Sequence[str]) -> Publish:
    """What makes the published file: Whisper's format in half precision, the step, and the phones that its embeddings stand for."""

    def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
        own = {name: value.half() for name, value in weights.items() if name.startswith(_PUBLISHED)}
        return {"dims": asdict(dims), "model_state_dict": own, "global_step": step, "phones": list(symbols)}

    return publish
