"""Stand-ins for rendered clips, in a module of their own that a fresh process imports quickly."""

import contextlib
import os
import time
from pathlib import Path

import numpy as np

from latentsync.errors import InputError
from preprocess.talking_heads.shards.format import Collection, StoredClip, Take, encode_face

SIZE = 64  # pixels a side of a face


def fake_clip(collection: Collection, shard: int, number: int) -> StoredClip:
    """A clip as small as can be, with faces that tell which one it is."""
    rng = np.random.default_rng([shard, number])
    frames = collection.frames
    jpegs = [encode_face(np.full((SIZE, SIZE, 3), 5 * frame, np.uint8)) for frame in range(frames)]
    take = Take(
        jpegs=np.frombuffer(b"".join(jpegs), np.uint8),
        ends=np.cumsum([len(jpeg) for jpeg in jpegs]),
        landmarks=rng.random((frames, 68, 2), np.float32),
        mouth=rng.random((frames, len(collection.channels)), np.float32),
        lip_gap=np.arange(frames, dtype=np.float32),
        lip_width=np.ones(frames, np.float32),
        samples=np.zeros(640 * frames, np.int16),
        mel=np.zeros((80, 4 * frames), np.float32),
        phones=np.array([0, 3, 0], np.int16),
        phone_ends=np.array([0.1, 0.2, frames / 25]),
    )
    return StoredClip({"identity": 1000 * shard + number}, np.zeros((frames, 2, 3), np.float32), (take,) * collection.takes)


def slow_clip(collection: Collection, shard: int, number: int) -> StoredClip:
    """A fake clip that takes its time and leaves a trace in the folder that TRACES names."""
    time.sleep(0.15)
    (Path(os.environ["TRACES"]) / f"{shard}-{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return fake_clip(collection, shard, number)


def deaf_clip(collection: Collection, shard: int, number: int) -> StoredClip:
    """A slow clip in which interrupts are lost, as they are inside a finalizer."""
    with contextlib.suppress(KeyboardInterrupt):
        slow_clip(collection, shard, number)
    return fake_clip(collection, shard, number)


def failing_clip(collection: Collection, shard: int, number: int) -> StoredClip:
    """A clip that cannot be made."""
    raise InputError("the voice slt was not found")
