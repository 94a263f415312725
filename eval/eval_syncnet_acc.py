"""Accuracy of a trained SyncNet on a data set: `eval/eval_syncnet_acc.sh --config CONFIG --checkpoint W --data_dir DIR`."""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy.stats import rankdata
from torch import Tensor, nn
from tqdm import tqdm

from eval.estimates import NONE, Estimate, bootstrap, markdown_table, ratio, share
from eval.metrics.sync import SyncMeter, SyncReading, compare
from latentsync.cli import CODES, run_command
from latentsync.config import SyncNetConfig
from latentsync.constants import LATENT_CHANNELS, VAE_FACTOR
from latentsync.data.clip_index import open_catalog
from latentsync.data.features import Mels, audio_frames
from latentsync.data.sampling import SYNCNET_LENGTHS, SyncNetBatch, fixed_batches
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.errors import InputError
from latentsync.losses.sync import IN_SYNC
from latentsync.media.files import check_target, staged, write_json, write_text
from latentsync.mel import window_length, window_start
from latentsync.models.syncnet import SyncNet, load_syncnet
from latentsync.models.vae import LatentCodec
from latentsync.third_party.sync_search import MAX_SHIFT
from latentsync.training.syncnet import SYNC, SyncNetStep, SyncNetTrainee, SyncNetValidator, load_codec
from latentsync.training.trainer import make_accelerator
from latentsync.weights import file_sha256

logger = logging.getLogger("eval")
THRESHOLDS = np.linspace(0, 1, 101)
_SEED = 0  # of shuffled labels, and of the noise of latents of whole clips
_BLUE, _RED, _GREY = "#1f5fa8", "#c8501e", "#888888"
_NAMES = {
    "accuracy": f"accuracy at cosine > {IN_SYNC:g} (interval: Wilson, over pairs)",
    "accuracy_over_clips": "... with the interval over clips (bootstrap)",
    "accuracy_shuffled_labels": "control: the same with shuffled labels (50 % is chance)",
    "roc_area": "area below the ROC curve (50 % is chance; bootstrap over pairs)",
    "offset_0": "clips whose offset is 0 (Wilson)",
    "offset_1_at_most": "clips whose offset is one frame at most (Wilson)",
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="eval_syncnet_acc.sh",
        description="How often a trained SyncNet distinguishes pictures and sound of one moment from those of two, on clips with the "
        "windows, the preprocessing and the autoencoder of its training; and which offset it finds in whole clips. Prints the table.",
        epilog=CODES,
    )
    parser.add_argument(
        "--config", "--config_path", type=Path, metavar="CONFIG", required=True, help="YAML that the network was trained with"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="its weights, as training publishes them")
    parser.add_argument("--data_dir", type=Path, help="folder of processed clips that it was not trained on")
    parser.add_argument("--fileslist", type=Path, help="... and, or, a text file with one clip a line")
    parser.add_argument("--output_dir", type=Path, help="where syncnet_acc.json, .md and .png go (default: the table is printed only)")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs that are drawn (default %(default)s)")
    parser.add_argument("--offset_clips", type=int, default=40, help="clips whose offset is read; 0: none (default %(default)s)")
    parser.add_argument("--offset_frames", type=int, default=100, help="frames of each that are used (default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="pairs that are computed together (default %(default)s)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read ahead (default %(default)s)")
    parser.add_argument("--seed", type=int, help="of the pairs (default: the one of the training, as in its validation)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu keeps everything off a GPU that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser.parse_args(arguments)


def check_arguments(parsed: argparse.Namespace) -> None:
    """Raises InputError for numbers that make no sense."""
    least = {"pairs": 1, "offset_clips": 0, "offset_frames": 1, "batch_size": 1, "num_workers": 0}
    for name, bound in least.items():
        if getattr(parsed, name) < bound:
            raise InputError(f"--{name} is {getattr(parsed, name)}: give {bound} or more")
    if parsed.data_dir is None and parsed.fileslist is None:
        raise InputError("No clips are named: give --data_dir, a folder of processed clips, or --fileslist, a list of them.")


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures and sound, and their cosines.

    Attributes:
        cosines: float64 n.
        labels: bool n: both are of the same moment.
        clips: int64 n: the clip of each pair.
        loss: the mean of the training's loss.
        problems: clips that could not be read and whose turn went to the next one, a sentence each.
    """

    cosines: np.ndarray
    labels: np.ndarray
    clips: np.ndarray
    loss: float
    problems: tuple[str, ...] = ()

    def right(self, threshold: float = IN_SYNC) -> np.ndarray:
        """Which pairs are classified rightly by cosines above a threshold: bool n."""
        return (self.cosines > threshold) == self.labels

    def accuracy(self) -> Estimate | None:
        """The share classified rightly by cosines above 0.5, with Wilson's interval over pairs."""
        return share(self.right().tolist())

    def accuracy_over_clips(self) -> Estimate | None:
        """The same with the wider interval of resampled clips: pairs of one clip resemble each other."""
        places = np.unique(self.clips, return_inverse=True)[1]
        return ratio(np.bincount(places, self.right()).tolist(), np.bincount(places).tolist())

    def shuffled(self) -> Estimate | None:
        """The control: the share classified rightly had the labels been shuffled."""
        labels = np.random.default_rng(_SEED).permutation(self.labels)
        return share(((self.cosines > IN_SYNC) == labels).tolist())

    def curve(self) -> np.ndarray:
        """The accuracy at each of `THRESHOLDS`: float64 101."""
        return np.array([self.right(threshold).mean() for threshold in THRESHOLDS])

    def area(self) -> Estimate | None:
        """The area below the ROC curve, with the interval of resampled pairs; None where all labels are equal."""
        return bootstrap(lambda chosen: roc_area(self.cosines[chosen], self.labels[chosen]), len(self.labels))

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of wrong and of right pairs with cosines above each threshold that makes a difference."""
        order = np.argsort(-self.cosines, kind="stable")
        labels, cosines = self.labels[order], self.cosines[order]
        ends = np.append(np.flatnonzero(np.diff(cosines)), len(cosines) - 1)  # equal cosines fall together
        found = [np.append(0, np.cumsum(part)[ends]) / max(1, part.sum()) for part in (~labels, labels)]
        return found[0], found[1]


def roc_area(scores: np.ndarray, labels: np.ndarray) -> float:
    """How often a right pair has a higher score than a wrong one, ties counting half (Hanley and McNeil 1982); NaN without either kind."""
    right, wrong = int(labels.sum()), int((~labels).sum())
    if not right or not wrong:
        return float("nan")
    return float((rankdata(scores)[labels].sum() - right * (right + 1) / 2) / (right * wrong))


class CosineRecorder(nn.Module):
    """A SyncNet as in training that keeps the cosines of its pairs."""

    def __init__(self, trainee: SyncNetTrainee) -> None:
        super().__init__()
        self.trainee = trainee
        self.cosines: list[Tensor] = []

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """As the trainee."""
        pictures, audio, *rest = self.trainee(frames, mel)
        self.cosines.append(F.cosine_similarity(pictures.float(), audio.float(), dim=1).double().cpu())
        return pictures, audio, *rest


def measure_pairs(network: SyncNet, step: SyncNetStep, batches: Iterable[SyncNetBatch], accelerator: Accelerator, progress: tqdm) -> Pairs:
    """Batches of pairs through a network on its device, by the very validation of its training.

    Raises InputError where clip after clip cannot be read.
    """
    labels, clips, problems = [], [], []

    def recorded() -> Iterator[SyncNetBatch]:
        for batch in batches:
            labels.append(batch.label > IN_SYNC)
            clips.append(batch.clip)
            problems.extend(batch.problems)
            yield batch
            progress.update(len(batch.label))

    recorder = CosineRecorder(SyncNetTrainee(network)).eval()
    with torch.no_grad(), accelerator.autocast():
        tally = SyncNetValidator(step, recorded())(recorder, 0)[SYNC]
    joined = [torch.cat(parts).numpy() for parts in (recorder.cosines, labels, clips)]
    return Pairs(*joined, loss=tally.total / tally.count, problems=tuple(dict.fromkeys(problems)))


class LatentMeter(SyncMeter):
    """Embeddings of whole clips by a trained SyncNet of latents; each face is encoded once."""

    def __init__(self, network: SyncNet, codec: LatentCodec, *, resolution: int, num_frames: int, lower_half: bool) -> None:
        super().__init__(network, resolution=resolution, num_frames=num_frames, lower_half=lower_half)
        self.codec = codec

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pixels f 3 h w -> latents f 4 h w."""
        cells = (len(pixels), LATENT_CHANNELS, *(side // VAE_FACTOR for side in pixels.shape[-2:]))
        noise = torch.randn(cells, generator=torch.Generator().manual_seed(_SEED))
        with torch.autocast(self.device.type, enabled=False):
            return self.codec.encode(pixels.to(self.device, self.codec.dtype), noise.to(self.device, self.codec.dtype)).float()


def read_offset(dataset: SyncNetDataset, place: int, meter: SyncMeter, most_frames: int) -> SyncReading:
    """Offset and confidence of a clip, by its first frames. Raises InputError where it is too short or unreadable."""
    clip, length = dataset.catalog.clips[place], dataset.num_frames
    mel = dataset.mels(clip.path)
    frames = min(clip.frames, audio_frames(mel), most_frames)
    if frames < length + MAX_SHIFT:
        raise InputError(f"{clip.path} is {frames} frames long and an offset needs {length + MAX_SHIFT}: measure longer clips")
    audio = meter.embed_audio(mel[:, : window_start(frames - length) + window_length(length)])
    return compare(meter.embed_faces(dataset.faces(clip, range(frames))), audio)


def read_offsets(
    dataset: SyncNetDataset, meter: SyncMeter, parsed: argparse.Namespace, accelerator: Accelerator
) -> tuple[dict[str, SyncReading], dict[str, str]]:
    """Readings of some clips, evenly spread, by path; and why others have none."""
    found, failed = {}, {}
    places = spread(len(dataset), parsed.offset_clips)
    for place in tqdm(places, desc="Offsets", unit="clip", disable=parsed.quiet or not places):
        name = str(dataset.catalog.clips[place].path)
        try:
            with accelerator.autocast():
                found[name] = read_offset(dataset, place, meter, parsed.offset_frames)
        except InputError as error:
            failed[name] = str(error)
    return found, failed


def spread(count: int, wanted: int) -> Sequence[int]:
    """At most `wanted` of the places 0 .. count - 1, evenly spread."""
    return range(count) if wanted >= count else [place * count // wanted for place in range(wanted)]


@dataclass(frozen=True)
class AccuracyResults:
    """Everything that was measured of one SyncNet on one data set.

    Attributes:
        settings: configuration, weights, clips, and how they were measured.
        clips: clips that can be used.
        rejected: those that cannot, and why.
        offsets: readings of whole clips by name.
        failed: clips whose offset could not be read, and why.
        remarks: what a reader should know.
    """

    settings: Mapping[str, Any]
    clips: int
    rejected: Mapping[str, str]
    pairs: Pairs
    offsets: Mapping[str, SyncReading]
    failed: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> dict[str, Estimate | None]:
        """Value and interval of each number of the table."""
        offsets = [reading.offset for reading in self.offsets.values()]
        return {
            "accuracy": self.pairs.accuracy(),
            "accuracy_over_clips": self.pairs.accuracy_over_clips(),
            "accuracy_shuffled_labels": self.pairs.shuffled(),
            "roc_area": self.pairs.area(),
            "offset_0": share([offset == 0 for offset in offsets]),
            "offset_1_at_most": share([abs(offset) <= 1 for offset in offsets]),
        }


def to_json(results: AccuracyResults) -> dict[str, Any]:
    """Everything, for other programs."""
    curve = results.pairs.curve()
    values = {name: None if row is None else row._asdict() for name, row in results.rows.items()}
    counts = Counter(reading.offset for reading in results.offsets.values())
    return {
        "settings": dict(results.settings),
        "pairs": len(results.pairs.labels),
        "pairs_in_sync": int(results.pairs.labels.sum()),
        "clips": results.clips,
        "rejected_clips": dict(results.rejected),
        "problems": list(results.pairs.problems),
        **values,
        "loss": results.pairs.loss,
        "thresholds": THRESHOLDS.round(2).tolist(),
        "accuracy_at_thresholds": curve.tolist(),
        "best_threshold": float(THRESHOLDS[curve.argmax()].round(2)),
        "offsets": {str(offset): counts[offset] for offset in sorted(counts)},
        "offset_of_clips": {name: {"offset": r.offset, "confidence": r.confidence} for name, r in results.offsets.items()},
        "offset_failed": dict(results.failed),
        "remarks": list(results.remarks),
    }


def to_markdown(results: AccuracyResults) -> str:
    """The table and what is to be known about it."""
    pairs, curve = results.pairs, results.pairs.curve()
    best, count, cells = int(curve.argmax()), str(len(pairs.labels)), []
    for name, row in results.rows.items():
        if row is None:
            cells.append((_NAMES[name], NONE, NONE, "0"))
            continue
        interval = NONE if row.low is None or row.high is None else f"{_percent(row.low)} to {_percent(row.high)}"
        cells.append((_NAMES[name], _percent(row.value), interval, str(row.count)))
    chosen = f"best accuracy, at cosine > {THRESHOLDS[best]:.2f} (chosen on these very pairs)"
    cells += [(chosen, _percent(curve[best]), NONE, count), ("loss (0.693 is chance)", f"{pairs.loss:.4f}", NONE, count)]
    used = len(np.unique(pairs.clips))
    notes = [f"{count} pairs ({int(pairs.labels.sum())} of them in sync) from {used} of {results.clips} clips."]
    if results.rejected:
        notes.append(f"{len(results.rejected)} clips cannot be used; the reasons stand in syncnet_acc.json.")
    if results.failed:
        notes.append(f"{len(results.failed)} clips have no offset, such as: {next(iter(results.failed.values()))}")
    table = markdown_table(("measure", "value", "95 % interval", "of"), cells)
    settings = ", ".join(f"{name} {value}" for name, value in results.settings.items())
    return (
        "\n\n".join(["# Accuracy of a SyncNet", table, "\n".join([*notes, *pairs.problems, *results.remarks]), f"Settings: {settings}"])
        + "\n"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def draw(results: AccuracyResults, path: Path) -> None:
    """Write a picture (PNG): cosines, accuracy over thresholds, ROC curve, offsets of clips. Raises OutputError."""
    from matplotlib.figure import Figure  # here, because importing it searches a folder of settings

    pairs, figure = results.pairs, Figure(figsize=(11, 7.6), layout="constrained")
    (cosines, thresholds), (roc, offsets) = figure.subplots(2, 2)
    for label, colour, name in ((True, _BLUE, "same moment"), (False, _RED, "another moment")):
        cosines.hist(pairs.cosines[pairs.labels == label], bins=np.linspace(0, 1, 41), color=colour, alpha=0.6, label=name)
    cosines.set(xlabel="cosine", ylabel="pairs")
    thresholds.plot(THRESHOLDS, pairs.curve(), color=_BLUE)
    thresholds.axhline(0.5, color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    thresholds.axvline(IN_SYNC, color=_RED, linewidth=0.8, linestyle="--", label=f"{IN_SYNC:g}")
    thresholds.set(xlabel="cosine above which a pair counts as in sync", ylabel="accuracy", ylim=(0, 1.02))
    area = results.rows["roc_area"]
    roc.plot(*pairs.roc(), color=_BLUE, label=NONE if area is None else f"area {area.value:.3f}")
    roc.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    roc.set(xlabel="wrong pairs accepted", ylabel="right pairs accepted")
    counts = Counter(reading.offset for reading in results.offsets.values())
    offsets.bar(list(counts), list(counts.values()), color=_BLUE, label=f"{len(results.offsets)} clips")
    offsets.set(xlabel="offset in frames: +, the sound comes too early", ylabel="clips", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (cosines, offsets):
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in (cosines, thresholds, roc, offsets):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    with staged(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


@contextmanager
def cache_of(config: SyncNetConfig, output_dir: Path | None) -> Iterator[Path]:
    """Where what is computed once for each clip is kept: as in training, else beside the results, else nowhere for long."""
    if config.data.cache_dir is not None or output_dir is not None:
        yield config.data.cache_dir or output_dir / "cache"
        return
    with TemporaryDirectory(prefix="latentsync-") as folder:
        yield Path(folder)


def open_data(config: SyncNetConfig, parsed: argparse.Namespace, cache: Path) -> SyncNetDataset:
    """The clips, cut into samples as in training. Raises InputError."""
    data, seed = config.data, config.run.seed if parsed.seed is None else parsed.seed
    catalog = open_catalog(
        *(parsed.data_dir, parsed.fileslist),
        min_frames=SYNCNET_LENGTHS * data.num_frames,
        cache_dir=cache,
        show_progress=not parsed.quiet,
    )
    return SyncNetDataset(catalog, Mels(cache), num_frames=data.num_frames, resolution=data.resolution, seed=seed)


def remarks_of(config: SyncNetConfig, parsed: argparse.Namespace) -> tuple[str, ...]:
    """What a reader of the results must know."""
    trained = config.data.train_data_dir
    if trained is None or parsed.data_dir is None or not parsed.data_dir.resolve().is_relative_to(trained.resolve()):
        return ()
    return (f"**{parsed.data_dir} is what this SyncNet was trained on: these figures say nothing about other people.**",)


def measure(parsed: argparse.Namespace) -> AccuracyResults:
    """Load, measure pairs, measure offsets. Raises InputError, ConfigError, WeightsError."""
    config, network = load_syncnet(parsed.config, parsed.checkpoint)
    data, accelerator = config.data, make_accelerator(config.run, parsed.device)
    codec = load_codec(config, accelerator) if data.latent_space else None
    network = network.to(accelerator.device).eval().requires_grad_(False)
    for remark in (remarks := remarks_of(config, parsed)):
        logger.warning("%s", remark.strip("*"))
    with cache_of(config, parsed.output_dir) as cache:
        dataset = open_data(config, parsed, cache)
        step = SyncNetStep({}, lower_half=data.lower_half, codec=codec, seed=dataset.seed)
        batches = fixed_batches(dataset, parsed.pairs, parsed.batch_size, num_workers=parsed.num_workers)
        with tqdm(total=parsed.pairs, desc="Pairs", unit="pair", disable=parsed.quiet) as bar:
            pairs = measure_pairs(network, step, batches, accelerator, bar)
        sizes = {name: getattr(data, name) for name in ("resolution", "num_frames", "lower_half")}
        meter = SyncMeter(network, **sizes) if codec is None else LatentMeter(network, codec, **sizes)
        offsets, failed = read_offsets(dataset, meter, parsed, accelerator)
    settings = {
        "config": str(parsed.config),
        "checkpoint": str(parsed.checkpoint),
        "sha256": file_sha256(parsed.checkpoint),
        **{name: str(path) for name in ("data_dir", "fileslist") if (path := getattr(parsed, name)) is not None},
        "seed": dataset.seed,
        **sizes,
        "latent_space": data.latent_space,
        "precision": accelerator.mixed_precision,
    }
    rejected = {str(path): why for path, why in dataset.catalog.rejected.items()}
    return AccuracyResults(settings, len(dataset), rejected, pairs, offsets, failed, remarks)


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    check_arguments(parsed)
    if parsed.output_dir is not None:
        check_target(parsed.output_dir / "syncnet_acc.json")
    results = measure(parsed)
    table = to_markdown(results)
    if parsed.output_dir is not None:
        write_json(parsed.output_dir / "syncnet_acc.json", to_json(results))
        write_text(parsed.output_dir / "syncnet_acc.md", table)
        draw(results, parsed.output_dir / "syncnet_acc.png")
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "nothing was written but the cache of what clips hold.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
