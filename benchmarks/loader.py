"""Samples a second of both data sets: with and without processes that read ahead, before and after audio features are cached.

    python -m benchmarks.loader CLIPS [--whisper checkpoints/whisper/tiny.pt] [--resolution 256] [--num_frames 16] [--samples 200]

Cold: caches are empty, each clip's sound is decoded and encoded on first sight. Warm: everything that is computed once is there. The
files themselves are in the system's page cache either way.
"""

import argparse
import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from latentsync.data.clip_index import Catalog, open_catalog
from latentsync.data.features import Features, Mels
from latentsync.data.sampling import SYNCNET_LENGTHS, UNET_LENGTHS, ClipDataset, IndexSampler, make_loader
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.data.unet_dataset import UNetDataset
from latentsync.weights import CHECKPOINTS, WEIGHTS, WHISPER_BY_WIDTH

BATCH, SEED = 4, 0
WORKERS = (0, 1, 2)
WHISPER_TINY = CHECKPOINTS / WEIGHTS[WHISPER_BY_WIDTH[384]].path


def make_dataset(name: str, catalog: Catalog, cache: Path, arguments: argparse.Namespace) -> ClipDataset:
    sizes = {"num_frames": arguments.num_frames, "resolution": arguments.resolution, "seed": SEED}
    if name == "syncnet":
        return SyncNetDataset(catalog, Mels(cache), **sizes)
    return UNetDataset(catalog, Mels(cache), Features(cache, arguments.whisper), **sizes)


def rate(dataset: ClipDataset, workers: int, samples: int) -> tuple[float, float]:
    """Seconds until the first batch, and samples a second of the following ones; every clip once if there are as many."""
    batches = iter(make_loader(dataset, IndexSampler(len(dataset), seed=SEED, batch_size=BATCH), workers))
    begin = time.perf_counter()
    next(batches)
    first = time.perf_counter()
    count = max(1, samples // BATCH - 1)
    for _ in itertools.islice(batches, count):
        pass
    return first - begin, BATCH * count / (time.perf_counter() - first)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description="Samples a second of both data sets.")
    parser.add_argument("clips", type=Path, help="folder of processed clips")
    parser.add_argument("--whisper", type=Path, default=WHISPER_TINY, help="audio encoder (default %(default)s)")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--num_frames", type=int, default=16)
    parser.add_argument("--samples", type=int, default=200, help="of one measurement")
    arguments = parser.parse_args()
    print("data set  workers  cache  first batch  samples/s")
    for name, workers in itertools.product(("syncnet", "unet"), WORKERS):
        with TemporaryDirectory(prefix="latentsync-") as folder:
            least = max(SYNCNET_LENGTHS, UNET_LENGTHS) * arguments.num_frames
            catalog = open_catalog(arguments.clips, None, min_frames=least, cache_dir=Path(folder))
            for cache in ("cold", "warm"):
                first, samples = rate(make_dataset(name, catalog, Path(folder), arguments), workers, arguments.samples)
                print(f"{name:8}  {workers:7}  {cache:5}  {first:9.2f} s  {samples:9.1f}", flush=True)


if __name__ == "__main__":
    main()
