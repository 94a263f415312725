"""Pictures of 10 bits, HDR and alpha: what the networks see of them, and how a new mouth comes back into the stored planes.

The networks see 8-bit SDR frames. `DeepFrame` is such a frame that brings the stored picture along, also through copies with a new mouth.
`changed_planes` adds to the stored planes what has changed in the frame, through the inverse of the tone curve: what is as it was seen
keeps its very code values.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from latentsync.media.probe import NEW_SPACE, UNTAGGED_SPACE, Colour, VideoStream

HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}  # ffmpeg's names of the transfer functions
REFERENCE_WHITE = 203.0  # cd/m2: what is white in SDR (ITU-R BT.2408)
PEAK = 1000.0  # cd/m2 that the networks see as 255; what is brighter they see so, too
HLG_GAMMA = 1.2  # of a display with this peak (BT.2100), here of each colour alone
SDR_GAMMA = 2.4  # BT.1886
KNEE = 0.5  # of white: darker light keeps its value, lighter is compressed
LUT_SIDE = 33  # nodes a side: in the mean within 0.5 levels of 255 of the curve
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])  # of BT.2020, linear (BT.2087)
_LUMA = {  # YUV matrix -> shares of red and blue in luma
    "bt709": (0.2126, 0.0722), "fcc": (0.30, 0.11), "bt470bg": (0.299, 0.114), "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087), "bt2020nc": (0.2627, 0.0593), "bt2020c": (0.2627, 0.0593),
}  # fmt: skip
_SHRUNK = {"420": (1, 1), "422": (1, 0), "444": (0, 0)}  # chroma -> bits by which its width and height are shifted


@dataclass(frozen=True)
class DeepFormat:
    """How the planes of a picture are stored, in the order of ffmpeg: Y U V or G B R, and alpha."""

    chroma: str | None  # "420", "422", "444"; None for RGB
    bits: int  # 8 or 10
    has_alpha: bool
    colour: Colour

    @property
    def pixel_format(self) -> str:
        """ffmpeg's name."""
        if self.chroma is None:
            return "gbrap" if self.has_alpha else "gbrp"
        return f"yuv{'a' if self.has_alpha else ''}{self.chroma}p{'10le' if self.bits > 8 else ''}"

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.bits > 8 else "u1")

    def shapes(self, width: int, height: int) -> list[tuple[int, int]]:
        """Height and width of each plane of a picture."""
        right, down = _SHRUNK[self.chroma or "444"]
        small = (-(-height >> down), -(-width >> right))
        return [(height, width), small, small, *([(height, width)] if self.has_alpha else [])]

    def new(self, width: int, height: int) -> np.ndarray:
        """Room for the planes of a picture, one behind the other, [n]."""
        return np.empty(sum(rows * columns for rows, columns in self.shapes(width, height)), self.dtype)

    def planes(self, stored: np.ndarray, width: int, height: int) -> list[np.ndarray]:
        """The planes [h w] of a picture [n]: views."""
        shapes = self.shapes(width, height)
        ends = np.cumsum([rows * columns for rows, columns in shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(stored, ends[:-1]), shapes, strict=True)]

    def frame_bytes(self, width: int, height: int) -> int:
        return sum(rows * columns for rows, columns in self.shapes(width, height)) * self.dtype.itemsize

    def code_values(self, change: np.ndarray) -> list[np.ndarray]:
        """A change of R'G'B' [h w 3], 1 = the whole range, as changes of the colour planes, float32 [h w], all of full size."""
        full = (1 << self.bits) - 1
        if self.chroma is None:
            return [change[..., place] * np.float32(full) for place in (1, 2, 0)]
        red, blue = _LUMA.get(self.colour.space or UNTAGGED_SPACE, _LUMA[UNTAGGED_SPACE])
        limited = self.colour.range != "pc"
        luma, chroma = (219 << self.bits - 8, 224 << self.bits - 8) if limited else (full, full)
        y = change @ np.array([red, 1 - red - blue, blue], dtype=np.float32)
        shares = ((change[..., place] - y) * np.float32(chroma / (2 - 2 * share)) for place, share in ((2, blue), (0, red)))
        return [y * np.float32(luma), *shares]


def deep_format(video: VideoStream) -> DeepFormat | None:
    """How frames of a video are kept that have more than 8 bits or alpha; None where 8-bit RGB holds all (and for RGB of more bits)."""
    is_deep = video.bits > 8 and video.chroma is not None
    if not (is_deep or video.has_alpha):
        return None
    return DeepFormat(video.chroma, 10 if is_deep else 8, video.has_alpha, video.colour)


def seen_colour(video: VideoStream) -> Colour:
    """The colour tags of the 8-bit frames that are read from a video: HDR is tone-mapped."""
    if is_tone_mapped(video):
        return Colour("tv", NEW_SPACE, NEW_SPACE, NEW_SPACE)
    return video.colour


def is_tone_mapped(video: VideoStream) -> bool:
    return video.colour.transfer in HDR and video.bits > 8 and video.chroma is not None


class DeepFrame(np.ndarray):
    """What the networks see of a deep picture, uint8 [h w 3]; it, and what is copied from it, knows the picture."""

    picture: "DeepPicture | None" = None

    def __array_finalize__(self, source: Any) -> None:
        self.picture = getattr(source, "picture", None)


@dataclass(frozen=True)
class DeepPicture:
    """A stored picture and what was seen of it."""

    format: DeepFormat
    stored: np.ndarray  # [n], see `DeepFormat`
    seen: np.ndarray  # uint8 [h w 3]


def deep_frame(seen: np.ndarray, stored: np.ndarray, layout: DeepFormat) -> DeepFrame:
    """A frame uint8 [h w 3] that brings its stored planes [n] along."""
    frame = seen.view(DeepFrame)
    frame.picture = DeepPicture(layout, stored, seen)
    return frame


def changed_planes(frame: DeepFrame) -> np.ndarray:
    """The stored planes [n] with the changes of a frame uint8 [h w 3] since it was read; alpha stays."""
    picture, now = frame.picture, frame.view(np.ndarray)
    layout, (height, width) = picture.format, now.shape[:2]
    differs = np.any(now != picture.seen, axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if len(rows) == 0:
        return picture.stored
    y0, y1 = rows[0] & ~1, min(rows[-1] + 2 & ~1, height)  # whole samples of chroma
    x0, x1 = columns[0] & ~1, min(columns[-1] + 2 & ~1, width)
    change = signal_of(now[y0:y1, x0:x1], layout.colour) - signal_of(picture.seen[y0:y1, x0:x1], layout.colour)
    stored = picture.stored.copy()
    for plane, values in zip(layout.planes(stored, width, height), layout.code_values(change), strict=False):
        right, down = (int(full != here) for full, here in zip((width, height), plane.shape[::-1], strict=True))
        if right or down:
            values = np.pad(values, ((0, len(values) % 2 * down), (0, values.shape[1] % 2 * right)), mode="edge")
            values = cv2.resize(values, (values.shape[1] >> right, values.shape[0] >> down), interpolation=cv2.INTER_AREA)
        part = plane[y0 >> down : (y0 >> down) + values.shape[0], x0 >> right : (x0 >> right) + values.shape[1]]
        part[...] = np.rint(part + values).clip(0, (1 << layout.bits) - 1)
    return stored


def signal_of(seen: np.ndarray, colour: Colour) -> np.ndarray:
    """Seen pixels uint8 [... 3] in the signal R'G'B' of a video, float32 [... 3] in [0, 1]: the inverse of `seen_of` where it has one."""
    pixels = seen.astype(np.float32) / 255
    if colour.transfer not in HDR:
        return pixels
    light = _expand(pixels**SDR_GAMMA, PEAK / REFERENCE_WHITE)
    if colour.primaries in (None, "bt2020"):
        light = np.maximum(light @ np.linalg.inv(_TO_BT709).T.astype(np.float32), 0)
    return _encode(light * (REFERENCE_WHITE / PEAK), colour.transfer)


def seen_of(signal: np.ndarray, colour: Colour) -> np.ndarray:
    """The HDR signal R'G'B' [... 3] of a video as SDR of BT.709, both in [0, 1]: light up to half of white as it is, more compressed."""
    light = _decode(signal, colour.transfer) * (PEAK / REFERENCE_WHITE)
    if colour.primaries in (None, "bt2020"):
        light = np.maximum(light @ _TO_BT709.T, 0)
    return _compress(light, PEAK / REFERENCE_WHITE).clip(0, 1) ** (1 / SDR_GAMMA)


def write_lut(colour: Colour) -> str:
    """`seen_of` as the text of a .cube file, for ffmpeg's lut3d filter."""
    steps = np.linspace(0, 1, LUT_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red changes fastest
    values = seen_of(np.stack([red, green, blue], axis=-1), colour).reshape(-1, 3)
    lines = "\n".join(f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in values.tolist())
    return f"LUT_3D_SIZE {LUT_SIDE}\n{lines}\n"


def _compress(light: np.ndarray, peak: float) -> np.ndarray:
    """Light, 1 = white, as light of SDR: above the knee Reinhard's extended curve, which reaches 1 at `peak`."""
    rest, most = np.maximum(light - KNEE, 0) / (1 - KNEE), (peak - KNEE) / (1 - KNEE)
    return np.minimum(light, KNEE) + (1 - KNEE) * rest * (1 + rest / most**2) / (1 + rest)


def _expand(light: np.ndarray, peak: float) -> np.ndarray:
    """The inverse of `_compress` up to `peak`."""
    most = (peak - KNEE) / (1 - KNEE)
    rest = np.maximum(light - KNEE, 0) / (1 - KNEE)  # y = x (1 + x / m2) / (1 + x), so x2 / m2 + (1 - y) x - y = 0
    half = (1 - rest) * most**2 / 2
    return np.minimum(light, KNEE) + (1 - KNEE) * (np.sqrt(half**2 + rest * most**2) - half)


_M1, _M2 = 2610 / 16384, 2523 / 32  # PQ, SMPTE ST 2084
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
_PQ_PEAK = 10_000.0  # cd/m2
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073  # HLG, BT.2100


def _decode(signal: np.ndarray, transfer: str) -> np.ndarray:
    """An HDR signal in [0, 1] as light of the display, 1 = `PEAK`."""
    if transfer == "smpte2084":
        power = signal ** (1 / _M2)
        return (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1) * (_PQ_PEAK / PEAK)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)
    return scene**HLG_GAMMA


def _encode(light: np.ndarray, transfer: str) -> np.ndarray:
    """The inverse of `_decode`."""
    if transfer == "smpte2084":
        power = (light * (PEAK / _PQ_PEAK)) ** _M1
        return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    scene = light ** (1 / HLG_GAMMA)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), _A * np.log(np.maximum(12 * scene - _B, 1e-6)) + _C)
