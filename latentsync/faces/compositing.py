"""Aligned faces back into the frame: colour match, inverse warp, soft edge."""

from collections.abc import Mapping, Sequence
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.faces.alignment import FILL, bounding_box, face_size, one_thread, sampling_matrix, to_picture, to_planes
from latentsync.faces.mask import lip_box

CELLS = 16  # a side of the grid on which colours are compared
REACH = 1.5  # cells: standard deviation over which a difference spreads
LARGEST = 0.3  # of the range of pixels, which is 2: what differs by more is no tint
GRID = 64  # a side of the grid on which the contour is found
UNIT = TEMPLATE_RESOLUTION / GRID  # pixels of a face at 256 in one cell of it
TOP, BOTTOM = 22, 62  # rows of it that have a contour of their own; those above and below take the nearest
CORE = ((128, 160), (72, 78))  # centre and half axes, at 256, of an ellipse that always counts as face: mouth, chin, inner cheeks
Y, X = (np.mgrid[0:GRID, 0:GRID] + 0.5) * UNIT  # centres of the cells
NOSE = (np.abs(X - 128) < 20) & (Y > 60) & (Y < 130)
SKIN_SAMPLE = NOSE | (np.hypot((X - 128) / 62, (Y - 128) / 34) < 1) & (Y > 96)  # nose and inner cheeks: taken for skin, bool [64 64]
BLACK = 24  # grey levels added to brightness, so that the noise of dark pixels is no colour
LEAST_SPREAD = np.array([0.05, 0.05, 0.2], dtype=np.float32)  # least standard deviations: red and blue beside brightness, its logarithm
SHADE, SHINE = 0.35, 0.10  # differences of that logarithm that shading makes on any face: darker, brighter
IS_SKIN, IS_NOT_SKIN = 1.6, 3.6  # standard deviations from the colour of the skin, up to which and from which a cell is sure
DOUBT = 0.15  # of a sure cell: what must speak against each cell, so that a doubtful one counts as face
LARGEST_STEP, STEP_COST = 2, 0.25  # cells from one row of the contour to the next, and what each of them costs
STEADY = 0.6  # share of the frame before that stays, in colours, scores of cells and contours
MARK = "AI-generated"
MARK_SHARE = 0.04  # of the shorter side of a picture: height of the mark, and its distance to the corner
LEAST_MARK = 12  # pixels
EDGE = 6.0  # pixels at 256 over which the matte rises


class FaceMatte:
    """Which part of the aligned faces of a video is face, frame after frame: background, hair, ear-rings and collars beside it are not.

    Cells are compared with the colour of nose and cheeks. For each side of a frame the contour is the line from row to row for which
    most cells outside differ from that colour and most cells inside do not (dynamic programming), so holes inside a face play no part.
    Where colours do not tell, everything counts as face. All is smoothed along time, anew in each span.
    """

    def __init__(self, resolution: int) -> None:
        self._resolution = resolution
        self._span: int | None = None
        self._colour: np.ndarray | None = None  # 2 3
        self._scores: np.ndarray | None = None  # 64 64
        self._contour: np.ndarray | None = None  # 2 rows

    def __call__(self, faces: Tensor, inside: Tensor, span: int) -> Tensor:
        """The matte float32 [f R R], 1 = face, of the next faces uint8 [f R R 3] of a span; inside: [f R R], 0 outside the picture."""
        if span != self._span:
            self._span, self._colour, self._scores, self._contour = span, None, None, None
        known = cell_means(inside.cpu().numpy()) > 0.99
        scores = np.stack([self._score(*parts) for parts in zip(cell_means(faces.cpu().numpy()), known, strict=True)])
        scores, self._scores = steadied(scores, self._scores)
        contours, self._contour = steadied(face_contours(scores), self._contour)
        return matte_of(torch.from_numpy(contours).to(faces.device), self._resolution)

    def state(self) -> dict[str, Tensor]:
        """What the next faces depend on, for `restore`."""
        arrays = {"colour": self._colour, "scores": self._scores, "contour": self._contour}
        known = {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if array is not None}
        return known if self._span is None else {"span": torch.tensor(self._span), **known}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self._span = int(state["span"]) if "span" in state else None
        arrays = (state[name].numpy() if name in state else None for name in ("colour", "scores", "contour"))
        self._colour, self._scores, self._contour = arrays

    def _score(self, cells: np.ndarray, known: np.ndarray) -> np.ndarray:
        """What the cells [64 64 3] of the next frame show, float32 [64 64]: 1 = surely skin, -1 = surely not, 0 = not `known`."""
        features = colour_features(cells)
        colour = skin_colour(features[known & SKIN_SAMPLE])
        if colour is not None:
            self._colour = colour if self._colour is None else STEADY * self._colour + (1 - STEADY) * colour
        if self._colour is None:
            return np.zeros((GRID, GRID), dtype=np.float32)
        score = (IS_SKIN + IS_NOT_SKIN - 2 * skin_distance(features, self._colour)) / (IS_NOT_SKIN - IS_SKIN)
        return np.where(known, score.clip(-1, 1), 0).astype(np.float32)


def steadied(values: np.ndarray, last: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Values [f ...] smoothed along time, going on from the smoothed value before them or else from the mean of a few; and the last one."""
    smooth, last = np.empty_like(values), values[:5].mean(axis=0) if last is None else last
    for index, value in enumerate(values):
        smooth[index] = last = STEADY * last + (1 - STEADY) * value
    return smooth, last


def face_contours(scores: np.ndarray) -> np.ndarray:
    """How many cells of each row, from the left and from the right, are no face; float32 [f 2 rows], from scores [f 64 64] in [-1, 1]."""
    rows = scores[:, TOP:BOTTOM]
    both = np.stack([rows, rows[..., ::-1]], axis=1)[..., : GRID // 2]  # f 2 rows cells, from the border to the middle
    costs = np.pad(np.cumsum(both + DOUBT, axis=-1), ((0, 0), (0, 0), (0, 0), (1, 0)))  # of leaving out the first 0, 1, 2, ... cells
    (x, y), (half_x, half_y) = CORE
    height = (np.arange(TOP, BOTTOM) + 0.5) * UNIT
    half = half_x * np.sqrt(np.clip(1 - ((height - y) / half_y) ** 2, 0, 1))
    allowed = np.arange(GRID // 2 + 1) * UNIT <= x - half[:, None]
    contours = cheapest_lines(np.where(allowed, costs, np.inf)).astype(np.float64)
    return gaussian_filter1d(contours, 1.8, radius=4, mode="nearest").astype(np.float32)


def cell_means(pictures: np.ndarray) -> np.ndarray:
    """Pictures [f R R] or [f R R 3], averaged over the cells of the grid; float32 [f 64 64] or [f 64 64 3]."""
    return np.stack([cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA) for picture in pictures]).astype(np.float32)


def colour_features(cells: np.ndarray) -> np.ndarray:
    """Red and blue beside brightness, divided by it, which shading then changes little, and its logarithm; [... 3] -> float32 [... 3]."""
    brightness = cells @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    red_blue = (cells[..., ::2] - brightness[..., None]) / (brightness + BLACK)[..., None]
    return np.concatenate([red_blue, np.log(brightness + BLACK)[..., None]], axis=-1)


def skin_colour(features: np.ndarray) -> np.ndarray | None:
    """Centre and standard deviation of features [n 3] of skin, float32 [2 3]; None when there are too few."""
    if len(features) < GRID:
        return None
    for _ in range(3):  # spectacles, nostrils and shine fall out
        centre = np.median(features, axis=0)
        spread = np.maximum(1.48 * np.median(np.abs(features - centre), axis=0), LEAST_SPREAD)
        features = features[(((features - centre) / spread) ** 2).sum(axis=-1) < 9]
    return np.stack([centre, spread])


def skin_distance(features: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """By how many standard deviations features [... 3] differ from the colour of a skin [2 3]; what shading makes counts nothing."""
    difference = features - colour[0]
    light = difference[..., 2]
    difference[..., 2] = np.maximum(light - SHINE, 0) - np.maximum(-light - SHADE, 0)
    return np.sqrt(((difference / colour[1]) ** 2).sum(axis=-1))


def cheapest_lines(costs: np.ndarray) -> np.ndarray:
    """The place in each row of the lines from first to last row whose costs and steps are least; costs [... rows places] -> [... rows]."""
    rows, places = costs.shape[-2:]
    total, steps = costs[..., 0, :], []
    for row in range(1, rows):
        padded = np.pad(total, [(0, 0)] * (total.ndim - 1) + [(LARGEST_STEP, LARGEST_STEP)], constant_values=np.inf)
        before = [padded[..., k : k + places] + STEP_COST * abs(k - LARGEST_STEP) for k in range(2 * LARGEST_STEP + 1)]
        steps.append(np.argmin(before, axis=0))
        total = np.minimum.reduce(before) + costs[..., row, :]
    line = [np.argmin(total, axis=-1)]
    for step in reversed(steps):
        line.append(line[-1] + np.take_along_axis(step, line[-1][..., None], axis=-1)[..., 0] - LARGEST_STEP)
    return np.stack(line[::-1], axis=-1)


def matte_of(contours: Tensor, resolution: int) -> Tensor:
    """Contours float32 [f 2 rows], in cells, as mattes [f R R] in [0, 1] with a soft edge half inside and half outside."""
    place = (torch.arange(resolution, device=contours.device) + 0.5) * (TEMPLATE_RESOLUTION / resolution)  # pixels at 256
    rows = (place / UNIT - 0.5 - TOP).clamp(0, contours.shape[-1] - 1)
    first = rows.long().clamp(max=contours.shape[-1] - 2)
    left, right = (torch.lerp(contours[..., first], contours[..., first + 1], rows - first) * UNIT)[..., None].unbind(dim=1)  # f R 1
    return (((place - left) / EDGE + 0.5).clamp(0, 1)) * (((TEMPLATE_RESOLUTION - right - place) / EDGE + 0.5).clamp(0, 1))


def skin_weights(keep: Tensor) -> Tensor:
    """Where colours are compared, float32 [... h w]: on what masks [... h w] let generate, but for the lips, which shall differ."""
    return (1 - keep) * (1 - lip_box(keep.shape[-1]).to(keep))


def match_skin(generated: Tensor, source: Tensor, weights: Tensor) -> Tensor:
    """Faces [... 3 h w] in [-1, 1] plus the slow part of their difference to `source`, known where weights [(...) h w] are above 0."""
    pixels, target = generated.flatten(0, -4), source.flatten(0, -4)
    weights = weights.expand(generated.shape[:-3] + generated.shape[-2:]).reshape(len(pixels), 1, *generated.shape[-2:])
    coarse = F.adaptive_avg_pool2d(torch.cat([(target - pixels) * weights, weights], dim=1), CELLS)
    steps = torch.arange(-4, 5, dtype=coarse.dtype, device=coarse.device)
    line = torch.exp(-(steps**2) / (2 * REACH**2))
    kernel = torch.outer(line, line).expand(4, 1, -1, -1)
    spread = F.conv2d(coarse, kernel, padding=4, groups=4)
    shift = (spread[:, :3] / spread[:, 3:].clamp_min(1e-6)).clamp(-LARGEST, LARGEST)
    shift = F.interpolate(shift, pixels.shape[-2:], mode="bicubic", align_corners=False)
    return (pixels + shift).clamp(-1, 1).view_as(generated)


EDGE_DIVISOR = 20  # the soft edge is as wide as the root of the face's area over this


def restore_faces(frames: Sequence[np.ndarray], faces: Tensor, matrices: Tensor, keep: Tensor | None = None) -> list[np.ndarray]:
    """New frames uint8 [h w 3] with faces, pixels float [f 3 R R] on any device, pasted back where `matrices` [f 2 3] took them from.

    keep: masks float [f R R], 1 where the frame shall stay as it is; None pastes all of the faces, as published. Computed in float32 on the
    faces' device, only over the box that a face can touch; the rest of a frame is byte for byte the input.
    """
    width, height = face_size(faces.shape[-1])
    with one_thread():
        crops = F.interpolate(faces.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
        shares = [None] * len(crops) if keep is None else pasted_shares(keep.to(crops), (height, width))
        return [paste(*parts) for parts in zip(frames, crops, torch.as_tensor(matrices), shares, strict=True)]


def cross_fade(source: np.ndarray, frame: np.ndarray, share: float) -> np.ndarray:
    """A picture between two, uint8 [h w 3]: the source where the share is 0, the frame where it is 1; equal pixels stay as they are."""
    if share in (0, 1):
        return frame if share else source
    faded = frame.copy()  # of its own type, which may bring the stored picture along
    faded[...] = cv2.addWeighted(np.asarray(source), 1 - share, np.asarray(frame), share, 0)
    return faded


@cache
def mark_tile(height: int) -> np.ndarray:
    """The visible mark as a picture uint8 [height w 3], white on dark grey."""
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, max(round(height * 0.5), 1))
    stroke = max(round(height / 16), 1)
    (width, text_height), _ = cv2.getTextSize(MARK, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
    tile = np.full((height, width + height, 3), 40, dtype=np.uint8)
    where = (height // 2, (height + text_height) // 2)
    return cv2.putText(tile, MARK, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), stroke, cv2.LINE_AA)


def draw_mark(frame: np.ndarray) -> np.ndarray:
    """The frame uint8 [h w 3] with the visible mark at the lower right, written into it; twice is as once."""
    height, width = frame.shape[:2]
    side = max(round(min(height, width) * MARK_SHARE), LEAST_MARK)
    gap = min(side, max(height - side, 0))
    tile = mark_tile(side)[-height:, -(width - gap) :]
    frame[height - gap - len(tile) : height - gap, width - gap - tile.shape[1] : width - gap] = tile
    return frame


def pasted_shares(keep: Tensor, size: tuple[int, int]) -> Tensor:
    """How much of crops of `size` (height, width) is pasted where masks [f R R] keep the frame: float32 [f h w], a soft edge between."""
    painted = F.interpolate(1 - keep[:, None], size, mode="bilinear", antialias=True, align_corners=False)[:, 0].clamp(0, 1)
    radius = soft_edge(size[1])
    if painted.device.type == "cpu":
        return torch.stack([blur_opencv(share, radius) for share in painted])
    return blur_shifts(painted, radius)


def soft_edge(width: int) -> int:
    """Pixels over which the edge of a mask is blurred to either side, on a crop of this width."""
    return max(1, width // EDGE_DIVISOR)


def inside_picture(matrices: Tensor, picture: tuple[int, int], resolution: int, device: torch.device | str = "cpu") -> Tensor:
    """Which part of aligned faces comes from inside the picture (width, height) alone; float32 [f R R] in [0, 1], 1 = inside.

    matrices: [f 2 3], picture -> crop. Networks and filters carry the fill outside over the border. So it is 0 up to the width of the soft
    edge inside the border, which `pasted_shares` then blurs to 0 at the border, and 1 from twice that on.
    """
    width, height = face_size(resolution)
    edge = soft_edge(width)
    full = torch.eye(3).repeat(len(matrices), 1, 1)
    full[:, :2] = torch.as_tensor(matrices).float().cpu()
    scale = torch.linalg.det(full).sqrt()[:, None]  # pixels of the crop in one of the picture
    backwards = (torch.linalg.inv(full)[:, :2] * scale[..., None]).to(device)  # crop -> picture, in pixels of the crop
    centres = (torch.arange(resolution, device=device) + 0.5) / resolution
    across, down = centres * width - 0.5, (centres * height - 0.5)[:, None]
    ends = ((torch.tensor(picture) - 1) * scale).to(device)
    margin = torch.full((len(matrices), resolution, resolution), float("inf"), device=device)
    for axis in (0, 1):
        x, y, offset = backwards[:, axis, :, None, None].unbind(dim=1)
        place = x * across + (y * down + offset)  # f R R
        margin = torch.minimum(margin, torch.minimum(place, ends[:, axis, None, None] - place))
    return ((margin - 1) / edge - 1).clamp(0, 1)


def paste(frame: np.ndarray, crop: Tensor, matrix: Tensor, share: Tensor | None = None) -> np.ndarray:
    """A new frame with a crop, float32 [3 h w], warped back; `share` [h w] of each pixel; erosion, soft mask and fill are as published."""
    size, picture, restored = (crop.shape[2], crop.shape[1]), (frame.shape[1], frame.shape[0]), frame.copy()
    box = bounding_box(matrix, size, picture)
    if box is None:
        return restored
    x0, y0, x1, y1 = box
    x, y = face_coordinates(matrix, size, picture, box, crop.device)  # h w each
    cover = axis_coverage(x, size[0]) * axis_coverage(y, size[1])
    eroded, soft = edge_masks(cover)
    grid = torch.stack([x, y], dim=-1)[None]
    sample = F.grid_sample(crop[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    sample.add_((1 - cover).mul_(FILL)).mul_(0.5).add_(0.5).clamp_(0, 1).mul_(255)  # 3 h w
    patch = to_planes(frame[y0:y1, x0:x1]).to(crop.device).float()
    if share is not None:
        soft = soft * F.grid_sample(share[None, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0, 0]
    blend = sample.mul_(soft * eroded).add_(patch.mul_(1 - soft))
    restored[y0:y1, x0:x1] = to_picture(blend.to(torch.uint8).cpu()).numpy()
    return restored


def face_coordinates(
    matrix: Tensor, size: tuple[int, int], picture: tuple[int, int], box: tuple[int, int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where each pixel of a box of the picture lies in the crop, x and y, in [-1, 1]; float32 [h w] each."""
    backwards = torch.eye(3)
    backwards[:2] = matrix.float().cpu()
    theta = sampling_matrix(torch.linalg.inv(backwards)[:2], size, picture)
    x0, y0, x1, y1 = box
    across = torch.linspace(-1, 1, picture[0])[x0:x1, None].mul(theta[:, 0])  # w 2
    down = torch.linspace(-1, 1, picture[1])[y0:y1, None].mul(theta[:, 1]).add(theta[:, 2])  # h 2
    across, down = across.to(device), down.to(device)
    return across[None, :, 0] + down[:, None, 0], across[None, :, 1] + down[:, None, 1]


def axis_coverage(place: Tensor, length: int) -> Tensor:
    """The share in [0, 1] of a linear sample at `place`, in [-1, 1], that lies inside an axis of `length` pixels."""
    place = (place + 1) * ((length - 1) / 2)
    return torch.minimum(place + 1, length - place).clamp_(0, 1)


def edge_masks(cover: Tensor) -> tuple[Tensor, Tensor]:
    """The coverage shrunk by one pixel, and that shrunk further and blurred over 1/20 of the root of its area; both [h w] in [0, 1]."""
    erode, blur = (erode_opencv, blur_opencv) if cover.device.type == "cpu" else (erode_pooled, blur_shifts)
    eroded = erode(cover, 2)
    edge = int(max(float(eroded.sum()), 0.0) ** 0.5) // EDGE_DIVISOR
    if edge == 0:
        return eroded, eroded
    return eroded, blur(erode(eroded, 2 * edge), edge)


def gaussian_sigma(radius: int) -> float:
    """The standard deviation that belongs to a kernel of 2 radius + 1 pixels."""
    return 0.3 * (radius - 1) + 0.8


def erode_opencv(mask: Tensor, side: int) -> Tensor:
    """The minimum over offsets -side/2 .. side/2 - 1 in both axes; what lies outside is ignored."""
    return torch.from_numpy(cv2.erode(mask.numpy(), np.ones((side, side), np.uint8)))


def blur_opencv(mask: Tensor, radius: int) -> Tensor:
    """A Gaussian of 2 radius + 1 pixels, mirrored at the border without repeating the edge; five times faster than shifts here."""
    kernel, sigma = (2 * radius + 1, 2 * radius + 1), gaussian_sigma(radius)
    return torch.from_numpy(cv2.GaussianBlur(mask.numpy(), kernel, sigma, borderType=cv2.BORDER_REFLECT_101))


def erode_pooled(mask: Tensor, side: int) -> Tensor:
    """`erode_opencv` on any device."""
    before, after = side // 2, side - 1 - side // 2
    padded = F.pad(-mask[None], (before, after, before, after), value=float("-inf"))
    return -F.max_pool2d(F.max_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)[0]


def blur_shifts(mask: Tensor, radius: int) -> Tensor:
    """`blur_opencv` of masks [... h w] on any device, one axis after the other."""
    weights = torch.from_numpy(cv2.getGaussianKernel(2 * radius + 1, gaussian_sigma(radius))[:, 0]).float().to(mask.device)
    for dim in (-2, -1):
        length = mask.shape[dim]
        index = torch.from_numpy(np.pad(np.arange(length), radius, mode="reflect")).to(mask.device)
        spread = mask.index_select(dim, index)
        mask = sum(weight * spread.narrow(dim, tap, length) for tap, weight in enumerate(weights))
    return mask
