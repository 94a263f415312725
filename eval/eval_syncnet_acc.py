"""Accuracy of a trained SyncNet on a data set: `eval/eval_syncnet_acc.sh --config CONFIG --checkpoint W --data_dir DIR`."""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy.stats import rankdata
from tqdm import tqdm

from eval.estimates import NONE, SEED, Estimate, bootstrap, markdown_table, ratio, share
from latentsync.cli import CODES, run_command
from latentsync.data.clip_index import open_catalog
from latentsync.data.features import Mels
from latentsync.data.sampling import SYNCNET_LENGTHS, SyncNetBatch, fixed_batches
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.errors import InputError
from latentsync.losses.sync import IN_SYNC, cosine_loss
from latentsync.media.files import check_target, staged, write_json, write_text
from latentsync.mel import audio_frames, window_length, window_start
from latentsync.models.syncnet import SyncNet, load_syncnet
from latentsync.sync_meter import SyncMeter, SyncReading, compare
from latentsync.third_party.sync_search import MAX_SHIFT
from latentsync.training.syncnet import SyncNetStep
from latentsync.training.trainer import load_codec, make_accelerator
from latentsync.weights import file_sha256

logger = logging.getLogger("eval")
THRESHOLDS = np.linspace(0, 1, 101)
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
    parser = argparse.ArgumentParser(
        prog="eval_syncnet_acc.sh",
        description="Accuracy of a trained SyncNet at telling matching pairs of frames and audio from shifted ones, preprocessed as in its "
        "training; and the audio offset that it finds in whole clips. Prints the table.",
        epilog=CODES,
    )
    parser.add_argument("--config", "--config_path", type=Path, metavar="CONFIG", required=True, help="YAML of the SyncNet's training")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint of the SyncNet")
    parser.add_argument("--data_dir", type=Path, help="folder of processed clips, none of them trained on")
    parser.add_argument("--fileslist", type=Path, help="text file with one clip a line; adds to the folder")
    parser.add_argument("--output_dir", type=Path, help="folder of syncnet_acc.json, .md and .png (default: the table is only printed)")
    parser.add_argument("--pairs", type=int, default=2000, help="number of pairs (default %(default)s)")
    parser.add_argument("--offset_clips", type=int, default=40, help="clips whose offset is measured; 0: none (default %(default)s)")
    parser.add_argument("--offset_frames", type=int, default=100, help="frames used of each (default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="pairs in one pass (default %(default)s)")
    parser.add_argument("--num_workers", type=int, default=0, help="reading processes (default %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the pairs (default: that of the training, as in its validation)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto (default): the GPU if there is one; cpu: no GPU")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures and sound, and their cosines."""

    cosines: np.ndarray  # float64 n
    labels: np.ndarray  # bool n: both are of the same moment
    clips: np.ndarray  # int64 n: the clip of each pair
    loss: float  # the mean of the training's loss
    problems: Sequence[str] = ()  # clips that could not be read and whose turn went to the next one, a sentence each

    def right(self, threshold: float = IN_SYNC) -> np.ndarray:
        """Which pairs are classified rightly by cosines above a threshold: bool n."""
        return (self.cosines > threshold) == self.labels

    def estimates(self) -> dict[str, Estimate | None]:
        places = np.unique(self.clips, return_inverse=True)[1]
        shuffled = np.random.default_rng(SEED).permutation(self.labels)
        return {
            "accuracy": share(self.right().tolist()),
            "accuracy_over_clips": ratio(np.bincount(places, self.right()).tolist(), np.bincount(places).tolist()),
            "accuracy_shuffled_labels": share(((self.cosines > IN_SYNC) == shuffled).tolist()),
            "roc_area": bootstrap(lambda chosen: roc_area(self.cosines[chosen], self.labels[chosen]), len(self.labels)),
        }


def roc_area(scores: np.ndarray, labels: np.ndarray) -> float:
    """How often a right pair has a higher score than a wrong one, ties counting half (Hanley and McNeil 1982); NaN without either kind."""
    right, wrong = int(labels.sum()), int((~labels).sum())
    return float((rankdata(scores)[labels].sum() - right * (right + 1) / 2) / (right * wrong)) if right and wrong else float("nan")


def measure_pairs(network: SyncNet, step: SyncNetStep, batches: Iterable[SyncNetBatch], accelerator: Accelerator, progress: tqdm) -> Pairs:
    """Batches of pairs through a network on its device, as in the validation of its training."""
    parts, loss, problems = [], 0.0, {}
    with torch.no_grad(), accelerator.autocast():
        for batch in batches:
            problems |= dict.fromkeys(batch.problems)
            batch = batch.to(accelerator.device)
            visual, audio = network(step.view(batch), batch.mel)
            loss += float(cosine_loss(visual, audio, batch.label).sum())
            cosines = F.cosine_similarity(visual.float(), audio.float(), dim=1).double()
            parts.append([values.cpu().numpy() for values in (cosines, batch.label > IN_SYNC, batch.clip)])
            progress.update(len(cosines))
    for problem in problems:
        logger.warning("%s", problem)
    cosines, labels, clips = map(np.concatenate, zip(*parts, strict=True))
    return Pairs(cosines, labels, clips, loss / len(labels), list(problems))


def read_offsets(
    dataset: SyncNetDataset, meter: SyncMeter, parsed: argparse.Namespace, accelerator: Accelerator
) -> tuple[dict[str, SyncReading], dict[str, str]]:
    """Offset and confidence of some clips, evenly spread, by their first frames; and why others have none: too short, or unreadable."""
    found, failed, count, length = {}, {}, min(len(dataset), parsed.offset_clips), dataset.num_frames
    for place in tqdm(range(count), desc="Offsets", unit="clip", disable=parsed.quiet or not count):
        clip = dataset.catalog.clips[place * len(dataset) // count]
        try:
            mel = dataset.mels(clip.path)
            frames = min(clip.frames, audio_frames(mel), parsed.offset_frames)
            if frames < length + MAX_SHIFT:
                raise InputError(f"{clip.path} is {frames} frames long and an offset needs {length + MAX_SHIFT}: measure longer clips")
            with accelerator.autocast():
                audio = meter.embed_audio(mel[:, : window_start(frames - length) + window_length(length)])
                found[str(clip.path)] = compare(meter.embed_faces(dataset.faces(clip, range(frames))), audio)
        except InputError as error:
            failed[str(clip.path)] = str(error)
    return found, failed


def to_markdown(content: Mapping[str, Any]) -> str:
    """The table and what is to be known about it, by the content of the JSON file."""
    count, cells = str(content["pairs"]), []
    for name, label in _NAMES.items():
        value, low, high, of = content[name].values() if content[name] else (None, None, None, 0)
        interval = NONE if low is None or high is None else f"{100 * low:.1f} % to {100 * high:.1f} %"
        cells.append((label, NONE if value is None else f"{100 * value:.1f} %", interval, str(of)))
    chosen = f"best accuracy, at cosine > {content['best_threshold']:.2f} (chosen on these very pairs)"
    cells += [
        (chosen, f"{100 * max(content['accuracy_at_thresholds']):.1f} %", NONE, count),
        ("loss (0.693 is chance)", f"{content['loss']:.4f}", NONE, count),
    ]
    notes = [f"{count} pairs ({content['pairs_in_sync']} of them in sync) from {content['clips_used']} of {content['clips']} clips."]
    if rejected := content["rejected_clips"]:
        notes.append(f"{len(rejected)} clips cannot be used; the reasons stand in syncnet_acc.json.")
    if failed := content["offset_failed"]:
        notes.append(f"{len(failed)} clips have no offset, such as: {next(iter(failed.values()))}")
    table = markdown_table(("measure", "value", "95 % interval", "of"), cells)
    settings = ", ".join(f"{name} {value}" for name, value in content["settings"].items())
    parts = ["# Accuracy of a SyncNet", table, "\n".join([*notes, *content["problems"], *content["remarks"]]), f"Settings: {settings}"]
    return "\n\n".join(parts) + "\n"


def draw(pairs: Pairs, content: Mapping[str, Any], path: Path) -> None:
    """Write a picture (PNG): cosines, accuracy over thresholds, ROC curve, offsets of clips. Raises OutputError."""
    from matplotlib.figure import Figure  # here, because importing it searches a folder of settings

    figure = Figure(figsize=(11, 7.6), layout="constrained")
    (cosines, thresholds), (roc, offsets) = figure.subplots(2, 2)
    for label, colour, name in ((True, _BLUE, "same moment"), (False, _RED, "another moment")):
        cosines.hist(pairs.cosines[pairs.labels == label], bins=np.linspace(0, 1, 41), color=colour, alpha=0.6, label=name)
    cosines.set(xlabel="cosine", ylabel="pairs")
    thresholds.plot(THRESHOLDS, content["accuracy_at_thresholds"], color=_BLUE)
    thresholds.axhline(0.5, color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    thresholds.axvline(IN_SYNC, color=_RED, linewidth=0.8, linestyle="--", label=f"{IN_SYNC:g}")
    thresholds.set(xlabel="cosine above which a pair counts as in sync", ylabel="accuracy", ylim=(0, 1.02))
    accepted = [(pairs.cosines[pairs.labels == label] > THRESHOLDS[:, None]).sum(1) for label in (False, True)]
    area = content["roc_area"]
    roc.plot(
        *(found / max(1, (pairs.labels == label).sum()) for label, found in enumerate(accepted)),
        color=_BLUE,
        label=NONE if area is None else f"area {area['value']:.3f}",
    )
    roc.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    roc.set(xlabel="wrong pairs accepted", ylabel="right pairs accepted")
    counts = content["offsets"]
    offsets.bar(list(map(int, counts)), list(counts.values()), color=_BLUE, label=f"{sum(counts.values())} clips")
    offsets.set(xlabel="offset in frames: +, the sound comes too early", ylabel="clips", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (cosines, offsets):
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in (cosines, thresholds, roc, offsets):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    with staged(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def measure(parsed: argparse.Namespace, temporary: Path) -> tuple[Pairs, dict[str, Any]]:
    """Load, measure pairs and offsets: the pairs, and what goes into the JSON file. Raises InputError, ConfigError, WeightsError."""
    config, network = load_syncnet(parsed.config, parsed.checkpoint)
    data, accelerator, remarks = config.data, make_accelerator(replace(config.run, mixed_precision="no"), parsed.device), []
    trained = data.train_data_dir
    if trained is not None and parsed.data_dir is not None and parsed.data_dir.resolve().is_relative_to(trained.resolve()):
        remarks.append(f"**{parsed.data_dir} is what this SyncNet was trained on: these figures say nothing about other people.**")
        logger.warning("%s", remarks[0].strip("*"))
    codec = load_codec(config, accelerator) if data.latent_space else None
    network = network.to(accelerator.device).eval().requires_grad_(False)
    cache = data.cache_dir or (parsed.output_dir / "cache" if parsed.output_dir is not None else temporary)
    shortest, seed = SYNCNET_LENGTHS * data.num_frames, config.run.seed if parsed.seed is None else parsed.seed
    catalog = open_catalog(parsed.data_dir, parsed.fileslist, min_frames=shortest, cache_dir=cache, show_progress=not parsed.quiet)
    dataset = SyncNetDataset(catalog, Mels(cache), num_frames=data.num_frames, resolution=data.resolution, seed=seed)
    step = SyncNetStep({}, lower_half=data.lower_half, codec=codec, seed=dataset.seed)
    batches = fixed_batches(dataset, parsed.pairs, parsed.batch_size, num_workers=parsed.num_workers)
    with tqdm(total=parsed.pairs, desc="Pairs", unit="pair", disable=parsed.quiet) as bar:
        pairs = measure_pairs(network, step, batches, accelerator, bar)
    sizes = {name: getattr(data, name) for name in ("resolution", "num_frames", "lower_half")}
    offsets, failed = read_offsets(dataset, SyncMeter(network, codec=codec, **sizes), parsed, accelerator)
    distances = [abs(reading.offset) for reading in offsets.values()]
    estimates = pairs.estimates() | {
        "offset_0": share([distance == 0 for distance in distances]),
        "offset_1_at_most": share([distance <= 1 for distance in distances]),
    }
    curve = [float(pairs.right(threshold).mean()) for threshold in THRESHOLDS]
    return pairs, {
        "settings": {
            "config": str(parsed.config),
            "checkpoint": str(parsed.checkpoint),
            "sha256": file_sha256(parsed.checkpoint),
            **{name: str(path) for name in ("data_dir", "fileslist") if (path := getattr(parsed, name)) is not None},
            "seed": dataset.seed,
            **sizes,
            "latent_space": data.latent_space,
            "precision": accelerator.mixed_precision,
        },
        "pairs": len(pairs.labels),
        "pairs_in_sync": int(pairs.labels.sum()),
        "clips": len(dataset),
        "clips_used": len(np.unique(pairs.clips)),
        "rejected_clips": {str(path): why for path, why in dataset.catalog.rejected.items()},
        "problems": pairs.problems,
        **{name: None if found is None else found._asdict() for name, found in estimates.items()},
        "loss": pairs.loss,
        "thresholds": THRESHOLDS.round(2).tolist(),
        "accuracy_at_thresholds": curve,
        "best_threshold": float(THRESHOLDS[np.argmax(curve)].round(2)),
        "offsets": {str(offset): count for offset, count in sorted(Counter(reading.offset for reading in offsets.values()).items())},
        "offset_of_clips": {name: {"offset": found.offset, "confidence": found.confidence} for name, found in offsets.items()},
        "offset_failed": failed,
        "remarks": remarks,
    }


def run(parsed: argparse.Namespace) -> None:
    for name, bound in {"pairs": 1, "offset_clips": 0, "offset_frames": 1, "batch_size": 1, "num_workers": 0}.items():
        if getattr(parsed, name) < bound:
            raise InputError(f"--{name} is {getattr(parsed, name)}: give {bound} or more")
    if parsed.data_dir is None and parsed.fileslist is None:
        raise InputError("No clips are named: give --data_dir, a folder of processed clips, or --fileslist, a list of them.")
    if parsed.output_dir is not None:
        check_target(parsed.output_dir / "syncnet_acc.json")
    with TemporaryDirectory(prefix="latentsync-") as temporary:
        pairs, content = measure(parsed, Path(temporary))
    table = to_markdown(content)
    if parsed.output_dir is not None:
        write_json(parsed.output_dir / "syncnet_acc.json", content)
        write_text(parsed.output_dir / "syncnet_acc.md", table)
        draw(pairs, content, parsed.output_dir / "syncnet_acc.png")
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "nothing was written but the cache of what clips hold.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
