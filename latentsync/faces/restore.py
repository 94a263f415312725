"""Aligned face -> frame: the generated face is warped back and pasted with a soft edge; every other pixel stays as it is."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.faces.align import face_size
from latentsync.faces.threads import one_thread
from latentsync.faces.warp import FILL, bounding_box, sampling_matrix, to_picture, to_planes

EDGE_DIVISOR = 20  # the soft edge is as wide as the root of the face's area over this


def restore(frame: np.ndarray, face: Tensor, matrix: Tensor) -> np.ndarray:
    """A new frame uint8 [h w 3] with `face`, pixels float [3 R R] in [-1, 1], pasted where `matrix` [2 3] took it from."""
    return restore_faces([frame], face[None], torch.as_tensor(matrix)[None])[0]


def restore_faces(frames: Sequence[np.ndarray], faces: Tensor, matrices: Tensor, keep: Tensor | None = None) -> list[np.ndarray]:
    """New frames uint8 [h w 3] with faces, pixels float [f 3 R R] on any device, pasted back.

    matrices: [f 2 3], picture -> crop, as they were used to align. keep: masks float [f R R] of each face, 1 where the frame shall stay
    as it is; None pastes all of the faces, as published. Computed in float32 on the faces' device, and only over the box that a face
    can touch; the rest of a frame is byte for byte the input.
    """
    width, height = face_size(faces.shape[-1])
    with one_thread():
        crops = F.interpolate(faces.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
        shares = [None] * len(crops) if keep is None else pasted_shares(keep.to(crops), (height, width))
        return [paste(*parts) for parts in zip(frames, crops, torch.as_tensor(matrices), shares, strict=True)]


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

    matrices: [f 2 3], picture -> crop. What lies outside was filled before the networks saw it, and they and the filters carry that over
    the picture's border. So this is 0 up to the width of the soft edge inside the border, which `pasted_shares` then blurs to 0
    at the border, and 1 from twice that on.
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
    """A new frame with a crop, pixels float32 [3 h w], warped back into it; `share` [h w]: how much of each of its pixels.

    The sample of the crop is multiplied by its eroded coverage and then blended by the soft mask; both come from the
    published method, as does the fill value of 127 in the range of pixels, which makes the rim tend to white.
    """
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
    """The coverage shrunk by one pixel, and the soft mask made of it: shrunk further, then blurred; both [h w] in [0, 1].

    The width of the edge is a twentieth of the root of the covered area. Faces under 400 pixels have no soft edge.
    """
    erode, blur = (erode_opencv, blur_opencv) if cover.device.type == "cpu" else (erode_shifts, blur_shifts)
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


def erode_shifts(mask: Tensor, side: int) -> Tensor:
    """`erode_opencv` on any device: minima of shifted copies, the shift doubling each time."""
    for dim in (0, 1):
        before, after = side // 2, side - 1 - side // 2
        padding = (before, after) if dim == 1 else (0, 0, before, after)
        mask, reach = F.pad(mask, padding, value=float("inf")), 1
        while reach < side:
            step = min(reach, side - reach)
            length = mask.shape[dim] - step
            mask, reach = torch.minimum(mask.narrow(dim, 0, length), mask.narrow(dim, step, length)), reach + step
    return mask


def blur_shifts(mask: Tensor, radius: int) -> Tensor:
    """`blur_opencv` of masks [... h w] on any device, one axis after the other."""
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(taps**2) / (2 * gaussian_sigma(radius) ** 2))
    weights = (weights / weights.sum()).float().to(mask.device)
    for dim in (-2, -1):
        length = mask.shape[dim]
        index = mirrored_index(length, radius).to(mask.device)
        spread = mask.index_select(dim, index)
        mask = sum(weight * spread.narrow(dim, tap, length) for tap, weight in enumerate(weights))
    return mask


def mirrored_index(length: int, radius: int) -> Tensor:
    """Indexes -radius .. length - 1 + radius folded back into 0 .. length - 1, the edge pixel not repeated."""
    index, period = torch.arange(-radius, length + radius), max(2 * (length - 1), 1)
    return (length - 1 - ((index % period) - (length - 1)).abs()).clamp(0, length - 1)
