"""The autoencoder's training: pictures to losses, a critic that learns beside it, what is published, how held-out faces come back."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.func import functional_call

from latentsync.constants import LATENT_CHANNELS, VAE_FACTOR
from latentsync.data.picture_dataset import PictureBatch, lip_box
from latentsync.faces.mask import masked_pixels, to_pixels
from latentsync.models.patch_critic import PatchCritic
from latentsync.training.draws import sample_generator
from latentsync.training.feed import Problems
from latentsync.training.history import History
from latentsync.training.parts import Losses, Publish, Tally

L1, EDGE, KL, ADVERSARIAL, FEATURES, CRITIC = "l1", "edge", "kl", "adversarial", "features", "critic"
EDGE_SCALES = 3  # full size, half, quarter
_NETWORK = "vae."  # prefix of the published weights among the trainee's


class Verdicts(NamedTuple):
    """What the critic makes of pictures; each is the list that `PatchCritic` returns."""

    real: list[Tensor]
    decoded: list[Tensor]  # without a way back to the autoencoder: for the critic's own loss
    judged: list[Tensor]  # the same with a way back to the autoencoder, and none to the critic


class Painting(NamedTuple):
    """What the autoencoder makes of pixels."""

    decoded: Tensor  # float32 n 3 h w
    divergence: Tensor  # of the posteriors from the standard normal distribution, mean over all latent values
    verdicts: Verdicts | None  # None before there is a critic
    idle: Tensor  # 0, with a way to parameters that are not used yet: distributed training wants to hear of all of them


class AutoencoderTrainee(nn.Module):
    """The autoencoder and, optionally, the critic that is trained in the same step; only the autoencoder is published."""

    def __init__(self, vae: AutoencoderKL, critic: PatchCritic | None = None) -> None:
        super().__init__()
        self.vae, self.critic = vae, critic

    def forward(self, pixels: Tensor, noise: Tensor, with_critic: bool) -> Painting:
        """Pixels n 3 h w and standard normal noise n 4 h/8 w/8, with which posteriors are sampled."""
        posterior = DiagonalGaussianDistribution(self.vae.encode(pixels).latent_dist.parameters.float())
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        divergence = posterior.kl().mean() / noise[0].numel()
        parameters = {} if self.critic is None else dict(self.critic.named_parameters())
        if self.critic is None or not with_critic:
            return Painting(decoded, divergence, None, 0 * sum((value.sum() for value in parameters.values()), decoded.new_zeros(())))
        real, told = zip(*(seen.float().chunk(2) for seen in self.critic(torch.cat([pixels, decoded.detach()]))), strict=True)
        frozen = {name: value.detach() for name, value in parameters.items()}
        judged = [seen.float() for seen in functional_call(self.critic, frozen, (decoded,))]
        return Painting(decoded, divergence, Verdicts(list(real), list(told), judged), decoded.new_zeros(()))


class AutoencoderStep:
    """Picture, slopes, posteriors and, after a while, what the critic says (as in VQGAN, arXiv 2012.09841, with a fixed weight).

    Args:
        weights: loss -> its weight; what has none is not computed.
        seed: of the samples drawn from posteriors.
        critic_start, critic_ramp: samples that all processes have seen before the critic begins to learn, and while what it says
            grows from nothing to its full weight.
    """

    def __init__(self, weights: Mapping[str, float], *, seed: int = 0, critic_start: int = 0, critic_ramp: int = 0) -> None:
        self.weights, self.seed = weights, seed
        self.critic_start, self.critic_ramp = critic_start, critic_ramp

    def __call__(self, trainee: nn.Module, batch: PictureBatch) -> Losses:
        """The losses of a batch, each a scalar; those of the critic are 0 before there is one."""
        pixels, weight = batch_pixels(batch), batch.weight.flatten(0, 1)[:, None]  # n 1 h w
        heard = self.heard(int(batch.position.min()))
        painting = trainee(pixels, self._noise(batch), heard > 0)
        with torch.autocast(pixels.device.type, enabled=False):
            losses = {
                L1: lambda: (weight * (painting.decoded - pixels).abs()).mean(),
                EDGE: lambda: edge_loss(painting.decoded, pixels, weight),
                KL: lambda: painting.divergence,
                ADVERSARIAL: lambda: painting.idle if painting.verdicts is None else -heard * painting.verdicts.judged[-1].mean(),
                FEATURES: lambda: painting.idle if painting.verdicts is None else heard * feature_loss(painting.verdicts),
                CRITIC: lambda: painting.idle if painting.verdicts is None else critic_loss(painting.verdicts),
            }
            return {name: loss() for name, loss in losses.items() if self.weights.get(name, 0) > 0}

    def heard(self, position: int) -> float:
        """How much the critic's opinion counts at a position: 0 before it begins, then rising to 1."""
        if position < self.critic_start:
            return 0.0
        return min(1.0, (position - self.critic_start + 1) / max(self.critic_ramp, 1))

    def _noise(self, batch: PictureBatch) -> Tensor:
        """Standard normal, n 4 h/8 w/8, drawn from the batch's positions."""
        cells = (batch.pictures.shape[1], LATENT_CHANNELS, *(side // VAE_FACTOR for side in batch.pictures.shape[2:4]))
        noise = [torch.randn(cells, generator=sample_generator(self.seed, place)) for place in batch.position.tolist()]
        return torch.cat(noise).to(batch.pictures.device)


def batch_pixels(batch: PictureBatch) -> Tensor:
    """The pictures of a batch as pixels n 3 h w, grey where they are hidden."""
    pixels = masked_pixels(to_pixels(batch.pictures), batch.keep[:, :, None])  # b f 3 h w
    return pixels.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def edge_loss(ours: Tensor, theirs: Tensor, weight: Tensor | None = None, scales: int = EDGE_SCALES) -> Tensor:
    """How far the slopes of two pictures n c h w lie apart, mean over some scales: keeps lips and teeth sharp.

    Args:
        weight: how much each pixel counts, n 1 h w; None: all alike.
    """
    apart = ours - theirs
    weight = torch.ones_like(apart[:, :1]) if weight is None else weight
    total = apart.new_zeros(())
    for scale in range(scales):
        if scale:
            apart, weight = F.avg_pool2d(apart, 2), F.avg_pool2d(weight, 2)
        total = total + (apart.diff(dim=-1).abs() * weight[..., 1:]).mean() + (apart.diff(dim=-2).abs() * weight[..., 1:, :]).mean()
    return total / scales


def feature_loss(verdicts: Verdicts) -> Tensor:
    """How differently the critic's layers see true and decoded pictures (feature matching, Salimans et al., arXiv 1606.03498)."""
    pairs = zip(verdicts.judged[:-1], verdicts.real[:-1], strict=True)
    return torch.stack([F.l1_loss(judged, real.detach()) for judged, real in pairs]).mean()


def critic_loss(verdicts: Verdicts) -> Tensor:
    """The hinge loss of a critic: 2 for one that says 0 to everything."""
    return F.relu(1 - verdicts.real[-1]).mean() + F.relu(1 + verdicts.decoded[-1]).mean()


class AutoencoderValidator:
    """What becomes of whole held-out faces that go through the means of their posteriors, in full precision."""

    name = "held-out faces"

    def __init__(self, batches: Iterable[PictureBatch]) -> None:
        """`batches` gives the same batches, this process's share, every time it is iterated over."""
        self.batches = batches
        self._problems = Problems()

    def __call__(self, model: nn.Module, step: int) -> dict[str, Tally]:
        """Mean difference, and peak signal-to-noise ratio in decibels of face and mouth, each the mean over pictures."""
        sums, count = {"l1": 0.0, "psnr": 0.0, "psnr_mouth": 0.0}, 0
        vae = model.vae
        for batch in self.batches:
            self._problems.tell(batch.problems)
            pixels = batch_pixels(batch.to(vae.device))
            with torch.autocast(pixels.device.type, enabled=False):
                decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
            sums["l1"] += float((decoded - pixels).abs().mean((1, 2, 3)).sum())
            sums["psnr"] += float(psnr(decoded, pixels).sum())
            sums["psnr_mouth"] += float(psnr(mouth_of(decoded), mouth_of(pixels)).sum())
            count += len(pixels)
        return {name: Tally(total, count) for name, total in sums.items()}


def psnr(ours: Tensor, theirs: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in pixels n 3 h w, in decibels: n."""
    error = ((ours - theirs) / 2).square().mean((1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10()


def mouth_of(pixels: Tensor) -> Tensor:
    """The part of whole faces n 3 h w around the mouth."""
    rows, columns = lip_box(pixels.shape[-1])
    return pixels[..., rows, columns]


def publisher(sizes: Mapping[str, Any]) -> Publish:
    """What makes the published file: the autoencoder's weights, its config.json and the step."""

    def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
        state_dict = {name.removeprefix(_NETWORK): value for name, value in weights.items() if name.startswith(_NETWORK)}
        return {"state_dict": state_dict, "config": dict(sizes), "global_step": step}

    return publish
