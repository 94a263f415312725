"""The camera: how it frames a head, and what lens, sensor and compression leave of the picture."""

from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.talking_heads.solids import Camera
from preprocess.talking_heads.traits import stream

HEAD_HEIGHT = 24.0  # cm, from the chin to the top of the hair
HEAD_MIDDLE = np.array([0.0, 0.2, 4.0])  # cm, the middle of the visible head
_FOCAL_LIMITS = (28 / 24, 85 / 24)  # picture heights: 28 and 85 mm in front of a sensor 24 mm high


def frame_camera(seed: int, aspect: float = 1.0) -> Camera:
    """Where the camera of a clip stands: 55-160 cm away, the head 0.35-0.75 of the picture high, a little off the middle.

    `aspect` is width / height of the picture; the head stays inside it.
    """
    rng = stream(seed, "framing")
    share = float(np.clip(rng.normal(0.58, 0.09), 0.35, 0.75)) * min(1.0, aspect / 0.75)
    wanted = float(np.exp(rng.uniform(np.log(55), np.log(160))))
    focal = float(np.clip(share * wanted / HEAD_HEIGHT, *_FOCAL_LIMITS))
    distance = float(np.clip(focal * HEAD_HEIGHT / share, 55, 160))
    focal = share * distance / HEAD_HEIGHT
    picture = HEAD_HEIGHT / share  # cm, height of the picture at the head
    room_x = max(0.5 * (picture * aspect - 20.0) - 1.5, 0.0)
    room_y = max(0.5 * (picture - HEAD_HEIGHT) - 1.5, 0.0)
    across = float(np.clip(rng.normal(0, 0.07) * picture, -room_x, room_x))
    above = float(np.clip((rng.normal(0.02, 0.04)) * picture, -room_y, room_y))  # heads sit above the middle of portraits
    eye = HEAD_MIDDLE + np.array([-across, -above, distance])
    return Camera(eye.astype(np.float32), focal)


@dataclass(frozen=True)
class CameraLook:
    """What a camera does to all frames of a clip."""

    gain: np.ndarray  # float32 3: exposure and white balance error, factors on linear RGB
    vignette: float  # light lost in the corners, 0 .. 0.4
    blur: float  # sigma of the lens in picture heights
    sharpen: float  # weight of the halo, 0 .. 1
    noise: float  # standard deviation of luma noise of a mid grey, in steps of 255
    chroma_noise: float  # the same of the two colour differences
    saturation: float
    quality: int  # of the JPEG-like compression, 55 .. 95; 100 leaves it out


def draw_look(seed: int) -> CameraLook:
    """The look of a clip's camera: mostly a decent one, sometimes a poor webcam."""
    rng = stream(seed, "camera look")
    poor = rng.random() < 0.3
    noise = rng.gamma(2.0, 0.8) * (2.0 if poor else 0.7)
    warm = rng.normal(0, 0.035)
    gain = np.exp(rng.normal(0, 0.09)) * np.exp([warm, rng.normal(0, 0.012), -warm])
    return CameraLook(
        gain=gain.astype(np.float32),
        vignette=float(rng.beta(1.2, 4) * 0.45),
        blur=float(rng.uniform(0.0, 0.0042) if poor else rng.uniform(0.0, 0.0022)),
        sharpen=float(rng.beta(1.1, 2.5)),
        noise=float(min(noise, 6.0)),
        chroma_noise=float(min(noise, 6.0) * rng.uniform(0.3, 0.9)),
        saturation=float(np.clip(rng.normal(1.0, 0.09), 0.75, 1.25)),
        quality=int(rng.integers(55, 80) if poor else rng.integers(75, 96)) if rng.random() < 0.7 else 100,
    )


def expose(look: CameraLook, linear: np.ndarray) -> np.ndarray:
    """Linear RGB (float32 h w 3) before tone mapping -> the same with exposure, white balance and vignette."""
    height, width = linear.shape[:2]
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    fall = 1 - look.vignette * (0.5 * (x[None] ** 2 + y[:, None] ** 2)) ** 1.5
    return linear * (fall[..., None] * look.gain)


def apply(look: CameraLook, frame: np.ndarray, index: int, seed: int) -> np.ndarray:
    """A finished frame (uint8 h w 3 RGB), the `index`-th of a clip -> the same with lens blur, noise, sharpening and compression."""
    picture = frame.astype(np.float32)
    sigma = look.blur * frame.shape[0]
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    if look.saturation != 1.0:
        picture = grey + look.saturation * (picture - grey)
    picture += _noise(look, grey, np.random.default_rng([seed, index, 0x5E45]))
    if look.sharpen > 0.05:
        soft = cv2.GaussianBlur(picture, (0, 0), max(0.9, 0.004 * frame.shape[0]), borderType=cv2.BORDER_REFLECT_101)
        picture = picture + 0.8 * look.sharpen * (picture - soft)
    result = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return result if look.quality >= 100 else _compress(result, look.quality)


def _noise(look: CameraLook, grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise (float32 h w 3) of a picture's brightness (h w 1): strongest in the shadows of the tone curve; colour noise is coarser."""
    height, width = grey.shape[:2]
    fine = rng.standard_normal((height, width), np.float32)[..., None]
    coarse = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 2), np.float32)
    coarse = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    strength = 0.6 + 0.8 * np.exp(-grey / 90.0) - 0.25 * np.clip((grey - 160.0) / 95.0, 0, 1)
    blue, red = 1.5 * look.chroma_noise * coarse[..., :1], 1.5 * look.chroma_noise * coarse[..., 1:]
    luma = look.noise * fine
    return strength * np.concatenate([luma + red, luma - 0.3 * red - 0.3 * blue, luma + blue], -1)


def _compress(frame: np.ndarray, quality: int) -> np.ndarray:
    """A frame after one trip through JPEG."""
    packed = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
