"""The file format of training clips: shards of aligned faces with their truth, written and read without the renderer.

A shard is one uncompressed zip file of arrays in NumPy's .npy format, so `numpy.load` opens it too, and of a text `manifest.jsonl` with
one line a clip. Faces are JPEG pictures one behind the other in one array: any frame can be read without those before it. The same clips
make the same bytes. Beside the shards of a collection lie its description (`<name>.json`) and the mask of its faces (`<name>.mask.npy`).

Nothing here knows how clips are rendered: this module depends on the standard library, numpy, OpenCV and the ground floors alone.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError, OutputError
from latentsync.media.files import staged, write_json

VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every entry: a shard's bytes must not tell when it was written
_MANIFEST = "manifest.jsonl"
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@dataclass(frozen=True)
class Collection:
    """What all shards of a collection have in common; shard and clip numbers add the rest."""

    seed: int
    split: str
    resolution: int  # pixels a side of a face
    clips: int  # in one shard
    seconds: float  # length of a clip
    pairs: bool  # each clip comes with a twin: same person, motion and light, other words
    language: str
    clean_sound: bool
    channels: tuple[str, ...]  # names of the columns of `Take.mouth`
    symbols: tuple[str, ...]  # phones, numbered as in `Take.phones`
    placement: str = "truth"  # where faces lie in their crops: as the truth or as the offline detector puts them
    version: int = VERSION

    @property
    def name(self) -> str:
        """The collection in file names."""
        return f"heads-s{self.seed}-{self.split}-{self.resolution}"

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return round(self.seconds * VIDEO_FPS)

    @property
    def takes(self) -> int:
        """How often each clip is there: once, or twice with its twin."""
        return 2 if self.pairs else 1

    def shard_path(self, folder: Path, index: int) -> Path:
        """The file of a shard."""
        return folder / f"{self.name}-{index:06d}.npz"


@dataclass(frozen=True)
class Take:
    """A clip said one way; n frames, faces compressed."""

    jpegs: np.ndarray  # uint8: n JPEG pictures, one behind the other
    ends: np.ndarray  # int64 n: where each of them ends
    landmarks: np.ndarray  # float32 n 68 2, pixels of the face; whole numbers are pixel centres
    mouth: np.ndarray  # float32 n c, order of `Collection.channels`
    lip_gap: np.ndarray  # float32 n, cm between the lips at their middle
    lip_width: np.ndarray  # float32 n, cm between the corners of the mouth
    samples: np.ndarray  # int16 t, mono, AUDIO_SAMPLE_RATE
    mel: np.ndarray  # float32 m columns: Whisper's log-mel of the samples
    phones: np.ndarray  # int16 p, index into `Collection.symbols`; they fill the clip without gaps
    phone_ends: np.ndarray  # float64 p, s

    def __len__(self) -> int:
        return len(self.ends)

    def faces(self, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """The aligned faces of some frames: uint8 f R R 3, RGB. Raises InputError for a picture that is damaged."""
        return np.stack([_decoded(self.jpegs[int(self.ends[frame - 1]) if frame else 0 : int(self.ends[frame])]) for frame in frames])


@dataclass(frozen=True)
class StoredClip:
    """One person in one scene, and what is said there: the clip itself and, in a collection of pairs, its twin."""

    about: dict[str, Any]  # the clip's line in the manifest: identity, voices, texts
    matrices: np.ndarray  # float32 n 2 3: picture -> crop, the same for both takes
    takes: tuple[Take, ...]

    def __len__(self) -> int:
        return len(self.matrices)


def encode_face(face: np.ndarray) -> bytes:
    """A face (uint8 R R 3 RGB) as a JPEG picture of high quality with full colour resolution."""
    return cv2.imencode(".jpg", face[..., ::-1], _JPEG)[1].tobytes()


def _decoded(jpeg: np.ndarray) -> np.ndarray:
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR) if len(jpeg) else None
    if picture is None:
        raise InputError("a shard holds a picture that cannot be decoded: delete the shard and render it again")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def write_collection(folder: Path, collection: Collection, mask: np.ndarray) -> None:
    """Put the description and the mask (float32 R R) of a collection into a folder that will hold its shards.

    Raises InputError where the folder has a collection of this name that is made otherwise, OutputError where it cannot be written.
    """
    beside = folder / f"{collection.name}.json"
    if not beside.is_file():
        write_array(folder / f"{collection.name}.mask.npy", mask)
        write_json(beside, asdict(collection))
        return
    present = read_collection(folder, collection.name)
    for field in fields(Collection):
        wanted, found = getattr(collection, field.name), getattr(present, field.name)
        if wanted != found:
            raise InputError(f"{beside} describes shards with {field.name} {found}, not {wanted}: give another folder or the same settings")


def write_array(path: Path, array: np.ndarray) -> None:
    """One array as an .npy file, whole or not at all. Raises OutputError."""
    with staged(path) as temporary:
        try:
            np.save(temporary, array)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None


def read_collection(folder: Path, name: str | None = None) -> Collection:
    """The collection in a folder; `name` chooses one of several. Raises InputError."""
    found = [folder / f"{name}.json"] if name else sorted(folder.glob("heads-*.json"))
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise InputError(f"{folder} holds several collections ({names}): say which one")
    if not found or not found[0].is_file():
        raise InputError(f"{folder} holds no shards of talking heads: render them with python -m preprocess.talking_heads.shards")
    try:
        content = json.loads(found[0].read_text(encoding="utf-8"))
        if content.get("version") != VERSION:
            raise InputError(f"{found[0]} describes shards of version {content.get('version')}, not {VERSION}: render them again")
        return Collection(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        raise InputError(f"{found[0]} does not describe shards of talking heads: render them again") from None


def read_mask(folder: Path, collection: Collection) -> np.ndarray:
    """The mask of a collection's faces (float32 R R): 1 = keep, 0 = generate. Raises InputError."""
    path = folder / f"{collection.name}.mask.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise InputError(f"{path} is missing or damaged: render one more shard into this folder, or copy it with the shards") from None


def shard_bytes(clips: Sequence[StoredClip]) -> bytes:
    """A shard as bytes: a pure function of its clips."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        lines = "".join(json.dumps(clip.about, ensure_ascii=False) + "\n" for clip in clips)
        _add(archive, _MANIFEST, lines.encode())
        for number, clip in enumerate(clips):
            _add(archive, f"{number:04d}/matrices.npy", _npy(clip.matrices))
            for kind, take in enumerate(clip.takes):
                for field in fields(Take):
                    _add(archive, f"{number:04d}/{kind}/{field.name}.npy", _npy(getattr(take, field.name)))
    return whole.getvalue()


def write_shard(path: Path, content: bytes) -> None:
    """Write a shard whole or not at all. Raises OutputError."""
    with staged(path) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # the same on every system
    archive.writestr(entry, content)


def _npy(array: np.ndarray) -> bytes:
    text = io.BytesIO()
    np.lib.format.write_array(text, np.ascontiguousarray(array), allow_pickle=False)
    return text.getvalue()


class Shard:
    """A shard, open for reading; a context manager. Nothing of it is held in memory but its table of contents."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when the file is no shard."""
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile):
            raise InputError(f"{path} is missing or is no shard of talking heads: render it again") from None
        try:
            self.manifest: list[dict[str, Any]] = [json.loads(line) for line in self._read(_MANIFEST).splitlines()]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Shard":
        """Nothing more: the shard is open since the constructor."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.manifest)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._archive.close()

    def clip(self, number: int) -> StoredClip:
        """One clip, its faces still compressed. Raises InputError for a damaged shard."""
        kinds = range(2 if f"{number:04d}/1/ends.npy" in self._archive.NameToInfo else 1)
        takes = (Take(**{field.name: self._array(f"{number:04d}/{kind}/{field.name}") for field in fields(Take)}) for kind in kinds)
        return StoredClip(self.manifest[number], self._array(f"{number:04d}/matrices"), tuple(takes))

    def _array(self, name: str) -> np.ndarray:
        content = self._read(f"{name}.npy")
        try:
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except ValueError:
            raise self._damaged() from None

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except (OSError, KeyError, zipfile.BadZipFile):
            raise self._damaged() from None

    def _damaged(self) -> InputError:
        return InputError(f"{self.path} is damaged: delete it and render it again")
