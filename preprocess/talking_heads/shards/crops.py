"""Clips for training: rendered close up, aligned as inference aligns, with everything that is known about each frame."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentsync.constants import VIDEO_FPS
from latentsync.faces.align import align_known, on_face
from latentsync.faces.warp import warp_faces
from latentsync.media.audio import FULL_SCALE
from latentsync.whisper.log_mel import LogMel
from preprocess.talking_heads.clip import WORDS_PER_SECOND, Clip, ClipSettings, speech_of
from preprocess.talking_heads.shards.closeup import close_up
from preprocess.talking_heads.shards.format import Collection, StoredClip, Take, encode_face
from preprocess.talking_heads.shards.placement import MARGIN, Placement, as_detected
from preprocess.talking_heads.speech import phones
from preprocess.talking_heads.speech.splits import ClipPlan, Split, other_text, plan_clip
from preprocess.talking_heads.speech.synthesis import Speech
from preprocess.talking_heads.speech.viseme_table import CHANNELS
from preprocess.talking_heads.studio import Frame, Studio


@dataclass(frozen=True)
class Order:
    """What a collection wants of its clips; `collection` says the same to those who only read them."""

    seed: int = 1
    split: Split = "train"
    resolution: int = 256
    clips: int = 8
    seconds: float = 4.0
    pairs: bool = False
    language: str = "en"
    clean_sound: bool = False
    placement: Placement = "truth"

    def collection(self) -> Collection:
        """The collection with the names of this version's mouth channels and phones."""
        return Collection(**asdict(self), channels=CHANNELS, symbols=phones.SYMBOLS)


def plan_of(collection: Collection, shard: int, number: int) -> ClipPlan:
    """Who says what in clip `number` of a shard."""
    return plan_clip(collection.seed, shard * collection.clips + number, collection.split, _words(collection), collection.language)


def speeches_of(plan: ClipPlan, collection: Collection) -> tuple[Speech, ...]:
    """What is said in a clip and, in a collection of pairs, what its twin says. Raises InputError when a synthesiser is missing."""
    own = speech_of(plan, collection.seconds)
    if not collection.pairs:
        return (own,)
    return own, speech_of(replace(plan, text=other_text(plan, _words(collection), collection.language)), collection.seconds)


def _words(collection: Collection) -> int:
    """Words that fill a clip."""
    return int(collection.seconds * WORDS_PER_SECOND) + 2


def make_clip(collection: Collection, shard: int, number: int) -> StoredClip:
    """Render one clip of a shard: a pure function of its arguments. Raises InputError when a synthesiser is missing."""
    plan = plan_of(collection, shard, number)
    speeches = speeches_of(plan, collection)
    return record(plan, speeches, collection.frames, collection.resolution, collection.clean_sound, collection.placement)


def record(
    plan: ClipPlan,
    speeches: tuple[Speech, ...],
    frames: int,
    resolution: int,
    clean_sound: bool = False,
    placement: Placement = "truth",
) -> StoredClip:
    """Render a person saying one thing, or two with the same movements, and align the faces.

    The transforms come from the first speech's landmarks and serve both, as in inference, where they come from the video at hand. Speeches
    must last for `frames` frames at least.
    """
    clips = [Clip(plan, speech, ClipSettings(clean_sound=clean_sound), frames=frames) for speech in speeches]
    studio = close_up(plan.identity, plan.seed, clips[0].motion, resolution, MARGIN[placement])
    takes: list[Take] = []
    matrices = torch.empty(0)
    for clip in clips:
        shown = [studio.frame(pose, index) for index, pose in enumerate(clip.poses)]
        if not takes:
            matrices = align_known(np.stack([frame.landmarks for frame in shown]), resolution)
            if placement == "detector":
                matrices = as_detected(matrices, resolution, plan.seed)
        takes.append(_take(clip, shown, matrices, resolution))
    return StoredClip(_about(clips, studio), matrices.numpy(), tuple(takes))


def _take(clip: Clip, frames: list[Frame], matrices: Tensor, resolution: int) -> Take:
    """Everything about one way to say a clip."""
    pictures = [frame.picture for frame in frames]
    jpegs = [encode_face(face) for face in warp_faces(pictures, matrices, resolution).numpy()]
    samples = np.round(np.clip(clip.sound(), -1, 1) * 32767).astype(np.int16)
    said = phones.tile(clip.speech.phones, clip.frames / VIDEO_FPS)
    heard = LogMel(samples.astype(np.float32) / np.float32(FULL_SCALE))  # of the samples as they are stored
    return Take(
        jpegs=np.frombuffer(b"".join(jpegs), np.uint8),
        ends=np.cumsum([len(jpeg) for jpeg in jpegs]).astype(np.int64),
        landmarks=on_face(np.stack([frame.landmarks for frame in frames]), matrices.numpy(), resolution),
        mouth=clip.mouth.astype(np.float32),
        lip_gap=np.array([frame.lip_gap for frame in frames], np.float32),
        lip_width=np.array([frame.lip_width for frame in frames], np.float32),
        samples=samples,
        mel=heard.columns(0, heard.num_columns).numpy(),
        phones=np.array([phones.SYMBOLS.index(phone.symbol) for phone in said], np.int16),
        phone_ends=np.array([phone.end for phone in said], np.float64),
    )


def _about(clips: Sequence[Clip], studio: Studio) -> dict[str, Any]:
    """A clip's line in the manifest."""
    plan = clips[0].plan
    return {
        "identity": plan.identity,
        "split": plan.split,
        "seed": plan.seed,
        "frames": clips[0].frames,
        "picture": [studio.width, studio.height],
        "said": [{"voice": asdict(clip.speech.voice), "text": clip.speech.text} for clip in clips],
    }
