"""Evaluation of a model on real people, whose lips in the sound's own video are the truth: `python -m embedded.evaluate_people --help`."""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from embedded.evaluate import PERCENT, PLAIN, Aim, TableRow
from eval.estimates import Estimate, json_value, markdown_table, mean, ratio
from eval.inference_videos import add_model_arguments, read_pairs
from eval.metrics.base import Case
from eval.metrics.image import mouths
from eval.metrics.lips import (
    FEWEST_FOR_R,
    MESH_PICTURE,
    LipShapes,
    correlation,
    find_mesh,
    lip_outlines,
    lip_shapes,
    partial_correlation,
    track_jitter,
    track_range,
)
from latentsync.cli import run_command
from latentsync.constants import TEMPLATE_RESOLUTION, VIDEO_FPS
from latentsync.errors import ConfigError, InputError, OutputError, WeightsError, reason_of
from latentsync.faces.mask import LIPS, fixed_mask
from latentsync.media.files import check_readable, staged, write_json, write_text
from latentsync.third_party.face_mesh import FACE_MESH, FaceMesh, load_face_mesh

if TYPE_CHECKING:
    from eval.cases import GeneratedVideos, Pair
    from eval.measure import FaceClips

logger = logging.getLogger("eval")

# Single measures

LIP_MARGIN = 8  # pixels of a face of 256 around the outlines of the lips that count as lips
TURNED = (15.0, 30.0)  # degrees: heads turned as much, to either side


def laplacian_energy(pictures: np.ndarray) -> float:
    """Mean square of the Laplacian of grey pictures uint8 k h w 3, over all pixels."""
    greys = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures)
    return float(np.mean([np.square(cv2.Laplacian(grey, cv2.CV_64F)).mean() for grey in greys]))


def sharpness_ratios(faces: Tensor, source_faces: Tensor) -> dict[str, float]:
    """Energy of the Laplacian of faces uint8 k 256 256 3 over the source's: in the mouth box (nose to chin), and in that of the lips."""
    left, top, right, bottom = LIPS
    boxes = {
        "mouth": [mouths(part).byte().numpy() for part in (faces, source_faces)],
        "lips": [part[:, top:bottom, left:right].numpy() for part in (faces, source_faces)],
    }
    return {name: float(np.divide(*map(laplacian_energy, both))) for name, both in boxes.items()}


class FaceErrors(NamedTuple):
    """Mean absolute differences of generated and source on k aligned faces, grey levels."""

    pasted: np.ndarray  # k, over the part that the mask generates, without the lips
    kept: np.ndarray  # k, over the part that the mask keeps: what encoding alone changes


def face_errors(faces: Tensor, source_faces: Tensor, outlines: np.ndarray, keep: Tensor) -> FaceErrors:
    """Of faces uint8 k R R 3; outlines of the lips k m p 2, pixels of the face (m videos: all of their lips are left out); mask R R."""
    difference = (faces.short() - source_faces.short()).abs().float().mean(-1).numpy()  # k R R
    kept, pasted = (keep == 1).numpy(), (keep < 0.5).numpy()
    brush, outside = np.ones((2 * LIP_MARGIN + 1, 2 * LIP_MARGIN + 1), np.uint8), []
    for part, lips in zip(difference, outlines, strict=True):
        hidden = np.zeros(part.shape, np.uint8)
        for outline in lips:
            cv2.fillPoly(hidden, [np.rint(outline).astype(np.int32)], 1)
        outside.append(part[pasted & (cv2.dilate(hidden, brush) == 0)].mean())
    return FaceErrors(np.array(outside), difference[:, kept].mean(1))


# Measurement

VIDEOS = ("source", "generated", "own")  # `own`: the video of the sound


@dataclass(frozen=True)
class FaceTracks:
    """The face in the frames of a video and of its source: arrays of k frames with a face."""

    numbers: np.ndarray  # of the frames
    faces: Tensor  # uint8 k 256 256 3, aligned by the transforms of the source
    source_faces: Tensor
    mesh: Tensor  # k 468 3, as `find_mesh` gives it
    source_mesh: Tensor

    def over_time(self, values: np.ndarray, frames: int) -> np.ndarray:
        """Values k of these faces as values of all frames, NaN where there is none."""
        found = np.full(frames, np.nan)
        found[self.numbers[self.numbers < frames]] = values[self.numbers < frames]
        return found


@dataclass(frozen=True)
class LipMeasures:
    """The lips of one video beside those of the sound's own video."""

    opening_r: float | None  # Pearson's r of the openings
    width_r: float | None  # ... of the widths
    range: float  # standard deviation of the opening
    jitter: float | None  # mean absolute second difference of the opening


@dataclass(frozen=True)
class PersonMeasures:
    """One pair."""

    name: str
    frames: int  # that are measured
    lips: dict[str, LipMeasures]  # one of each of VIDEOS; `own` beside itself
    new_partial: float | None  # opening of the generated lips and of the sound's own, without what the source's lips explain of either
    old_r: float | None  # opening of the generated lips and of the source's
    old_control: float | None  # opening of the sound's own lips and of the source's
    old_partial: float | None  # `old_r` without what the sound's own lips explain of either
    still_r: float | None  # opening of lips generated for the same sound over a still picture, and of the source's
    sharpness: dict[str, float]  # energy of the Laplacian over that of the source: "mouth", "lips"
    errors: dict[str, float]  # grey levels: "pasted", "kept"
    turned_errors: float  # sum over `turned` frames of the error in the pasted part
    turned: int  # frames in which the source's head is turned by TURNED
    openings: dict[str, list[float]]  # of each frame and each of VIDEOS, NaN without a face


@dataclass(frozen=True)
class PeopleMeter:
    """What measures."""

    clips: "FaceClips"  # finds the faces
    network: FaceMesh
    keep: Tensor  # mask of the model on a face of 256: 1 = kept

    def track(self, video: Path, source: Path) -> FaceTracks:
        """The faces of a video and of its source (or of one video alone). Raises InputError: no face, or two sizes."""
        chunks = list(self.clips.chunks(Case(video.stem, video, source, source, "cross")))
        faces, source_faces = (torch.cat([getattr(chunk, name) for chunk in chunks]) for name in ("faces", "source_faces"))
        mesh = find_mesh(self.network, source_faces)
        numbers = np.concatenate([chunk.numbers for chunk in chunks])
        return FaceTracks(numbers, faces, source_faces, mesh if video == source else find_mesh(self.network, faces), mesh)

    def measure(self, name: str, tracks: FaceTracks, own: FaceTracks, still: FaceTracks) -> PersonMeasures:
        """The generated video beside its source, the sound's own video, and what is generated over a still picture of the source.

        Raises InputError: they have no frame with a face in common.
        """
        frames = int(min(tracks.numbers.max(), own.numbers.max())) + 1
        shapes = {"source": lip_shapes(tracks.source_mesh), "generated": lip_shapes(tracks.mesh), "own": lip_shapes(own.mesh)}
        lips = {key: LipShapes(*((own if key == "own" else tracks).over_time(part, frames) for part in shapes[key])) for key in VIDEOS}
        there = np.isfinite([lips[key].opening for key in VIDEOS]).all(0)
        if there.sum() < FEWEST_FOR_R:
            raise InputError(f"{name}: fewer than {FEWEST_FOR_R} frames show a face in all three videos: leave the pair out")
        openings = {key: np.where(there, lips[key].opening, np.nan) for key in VIDEOS}
        still_opening = still.over_time(lip_shapes(still.mesh).opening, frames)
        outlines = np.stack([lip_outlines(part, TEMPLATE_RESOLUTION) for part in (tracks.mesh, tracks.source_mesh)], 1)  # k 2 p 2
        both, turn = np.isfinite(outlines).all((1, 2, 3)), np.abs(shapes["source"].yaw)
        errors = face_errors(tracks.faces[both], tracks.source_faces[both], outlines[both], self.keep)
        turned = ((turn >= TURNED[0]) & (turn < TURNED[1]))[both]
        return PersonMeasures(
            name=name,
            frames=int(there.sum()),
            lips={
                key: LipMeasures(
                    correlation(openings[key], openings["own"]),
                    correlation(lips[key].width, lips["own"].width),
                    track_range(openings[key]),
                    track_jitter(openings[key]),
                )
                for key in VIDEOS
            },
            new_partial=partial_correlation(openings["generated"], openings["own"], openings["source"]),
            old_r=correlation(openings["generated"], openings["source"]),
            old_control=correlation(openings["own"], openings["source"]),
            old_partial=partial_correlation(openings["generated"], openings["source"], openings["own"]),
            still_r=correlation(still_opening, openings["source"]),
            sharpness=sharpness_ratios(tracks.faces, tracks.source_faces),
            errors={key: float(part.mean()) for key, part in errors._asdict().items()},
            turned_errors=float(errors.pasted[turned].sum()),
            turned=int(turned.sum()),
            openings={key: part.tolist() for key, part in openings.items()},
        )


def write_still(video: Path, path: Path) -> Path:
    """The frame in the middle of a video, for as long as the video, losslessly. Raises InputError, OutputError."""
    from latentsync.media.video_reader import VideoReader
    from latentsync.media.video_writer import VideoWriter

    if not path.is_file():
        frames = list(VideoReader(video).frames())
        with VideoWriter(path, frames[0].shape[1], frames[0].shape[0], VIDEO_FPS, lossless=True) as writer:
            for _ in frames:
                writer.write(frames[len(frames) // 2])
    return path


def measure_all(
    pairs: Sequence["Pair"], videos: "GeneratedVideos", meter: PeopleMeter, sheets: Path, stills: Path
) -> tuple[list[PersonMeasures], dict[str, str]]:
    """Generate, measure and draw all; which pairs could not be measured, and why. Raises InputError where none could."""
    measured, failed = [], {}
    for number, pair in enumerate(pairs, start=1):
        logger.info("%s (%d of %d)", pair.name, number, len(pairs))
        try:
            check_readable(pair.source)
            check_readable(pair.audio)
            tracks = meter.track(videos.generate(pair.name, pair.source, pair.audio), pair.source)
            own = meter.track(pair.audio, pair.audio)
            still = write_still(pair.source, stills / f"{pair.name}.mp4")
            alone = videos.generate(f"{pair.name}_still", still, pair.audio)
            measured.append(meter.measure(pair.name, tracks, own, meter.track(alone, alone)))
            write_sheet(tracks, own, sheets / f"{pair.name}.png")
        except (ConfigError, WeightsError, OutputError):
            raise  # of every pair alike
        except InputError as error:
            failed[pair.name] = reason_of(error)
            logger.warning("%s is left out: %s", pair.name, failed[pair.name])
    if not measured:
        raise InputError(f"Not one of {len(pairs)} pairs could be measured, the last because: {failed[pairs[-1].name]}")
    return measured, failed


# Contact sheets

MOMENTS = 12  # frames of a pair
MOUTH_SIDE = 160  # pixels: width of a mouth on a sheet
_CONTEXT = (slice(112, 250), slice(36, 220))  # rows and columns of a face of 256 around the mouth: nose to chin


def write_sheet(tracks: FaceTracks, own: FaceTracks, path: Path) -> None:
    """Mouths at `MOMENTS` moments that both videos have: rows of source, generated and the sound's own video. Raises OutputError."""
    numbers = np.intersect1d(tracks.numbers, own.numbers)
    chosen = numbers[np.linspace(0, len(numbers) - 1, MOMENTS).round().astype(int)]
    rows = []
    for faces, known in ((tracks.source_faces, tracks.numbers), (tracks.faces, tracks.numbers), (own.faces, own.numbers)):
        boxes = faces[np.searchsorted(known, chosen)][(slice(None), *_CONTEXT)].numpy()
        height, width = boxes.shape[1:3]  # of the square face, which is narrower in the picture
        upright = width * MESH_PICTURE[0] / MESH_PICTURE[1]
        size = (MOUTH_SIDE, round(MOUTH_SIDE * height / upright))
        rows.append(np.hstack([cv2.resize(box, size, interpolation=cv2.INTER_CUBIC) for box in boxes]))
    with staged(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)):
            raise OutputError(f"cannot write {path}: free some space and run the same command again")


# Table of results

HEADER = ("measure", "aim", "generated", "met", "source unchanged", "control", "pairs")


def make_rows(pairs: Sequence[PersonMeasures]) -> list[TableRow]:
    """All rows; the column `reference` of a row is its control."""

    def lips(name: str, of: Callable[[LipMeasures], float | None], aim: Aim | None) -> TableRow:
        return TableRow(name, *(mean([of(pair.lips[key]) for pair in pairs]) for key in ("generated", "source")), aim=aim)

    def over_own(name: str, of: Callable[[LipMeasures], float | None]) -> TableRow:
        known = [pair for pair in pairs if None not in [of(pair.lips[key]) for key in VIDEOS]]
        own = [of(pair.lips["own"]) for pair in known]
        return TableRow(name, *(ratio([of(pair.lips[key]) for pair in known], own) for key in ("generated", "source")), unit=PERCENT)

    def difference(pair: PersonMeasures) -> float | None:
        return None if pair.old_r is None or pair.old_control is None else pair.old_r - pair.old_control

    def sharpness(box: str) -> Estimate | None:
        return mean([pair.sharpness[box] for pair in pairs])

    sharp = "sharpness: energy of the Laplacian in the mouth box (nose to chin)"
    cross = [pair for pair in pairs if pair.old_control is None or pair.old_control < 1 - 1e-6]  # of its own words none is old
    known = [pair for pair in cross if None not in (pair.old_r, pair.still_r)]
    read = mean([pair.old_r - pair.still_r for pair in known])
    old = [mean([getattr(pair, name) for pair in cross]) for name in ("old_r", "old_control", "old_partial", "still_r")]
    partial = mean([pair.new_partial for pair in pairs])
    low, high = TURNED
    turned = ratio([pair.turned_errors for pair in pairs], [pair.turned for pair in pairs])
    seam: list[Estimate | None] = [mean([pair.errors[name] for pair in pairs]) for name in ("pasted", "kept")]
    return [
        lips("lip opening beside the sound's own lips, Pearson r", lambda part: part.opening_r, Aim(">=", 0.7)),
        lips("lip width beside the sound's own lips, Pearson r", lambda part: part.width_r, Aim(">=", 0.45)),
        TableRow("lip opening beside the sound's own lips, without what the source's lips explain, partial r", partial),
        TableRow("old words: lip opening beside the source's own lips, Pearson r", old[0], reference=old[1]),
        TableRow("... minus the pair's own control", mean([difference(pair) for pair in cross]), aim=Aim("<=", 0.03)),
        TableRow("... minus that of lips generated for the same sound over a still picture of the source", read, reference=old[3]),
        TableRow("... without what the new words explain, partial r", old[2]),
        over_own("range of the opening (standard deviation), share of the sound's own lips", lambda part: part.range),
        over_own("jitter of the opening (second difference), share of the sound's own lips", lambda part: part.jitter),
        TableRow(f"{sharp}, share of the source's", sharpness("mouth"), aim=Aim(">=", 0.7), unit=PERCENT),
        TableRow("... in the box of the lips alone", sharpness("lips"), unit=PERCENT),
        TableRow("seam and jaw: error in the pasted part without the lips, grey levels", seam[0], reference=seam[1], unit=PLAIN),
        TableRow(f"... of heads turned by {low:.0f} to {high:.0f} degrees", turned),
    ]


def make_notes(settings: Mapping[str, Any], pairs: Sequence[PersonMeasures], failed: Mapping[str, str]) -> list[str]:
    """Notes below the table; `failed`: pair -> why it could not be measured."""
    steps, scale, turned = settings["inference_steps"], settings["guidance_scale"], sum(pair.turned for pair in pairs)
    notes = [
        f"{len(pairs)} of {len(pairs) + len(failed)} pairs measured, {sum(pair.frames for pair in pairs)} frames, {turned} of them with a "
        f"turned head; {steps} steps, guidance {scale:g}. In brackets: 95 % intervals of the bootstrap over pairs.",
        "Lips: FaceMesh on faces aligned by the source's plan (the sound's own video: by its own). Opening: mean of the gaps 13/14, 82/87 "
        "and 312/317; width: 61/291; both over the distance 33/263 of the eyes.",
        "Control of the old words: r of the sound's own lips and the source's on the same frames, which a flawless result would show. A "
        "result that follows no words at all shows 0, and so less than a control above 0; the partial r has no such favour. A result that "
        "follows the sound's pauses alone shows more than the control, since both clips pause at their ends: lips generated for the same "
        "sound over a still picture, which shows no old words, tell what of r is read from the video.",
        f"Seam and jaw: where the mask generates, {LIP_MARGIN} pixels of 256 or more away from the lips of source and result; its control: "
        "where the mask keeps, so what encoding alone changes.",
    ]
    if failed:
        first = next(iter(failed))
        notes.append(f"{len(failed)} pairs could not be measured; the first was {first}: {failed[first]}")
    return notes


# Command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.evaluate_people",
        description="Give real people the words of other clips of their own and compare their lips with those of the sound's video. "
        "Writes results.json, results.md and sheets/NAME.png (rows: source, generated, the sound's own video); prints the table.",
        epilog="Run the same command again to resume: generated videos are kept in OUTPUT_DIR/generated. "
        "Exit codes: 0 done, 1 failed, 2 unusable input, 130 interrupted.",
    )
    group = parser.add_argument_group("inputs and output")
    columns = "video_path, audio_path (a video of the same speaker) and optionally name; paths are relative to the file"
    group.add_argument("pairs", type=Path, metavar="PAIRS.csv", help=f"table with the columns {columns}")
    group.add_argument("--output_dir", type=Path, required=True, help="folder of results and generated videos")
    group.add_argument("--limit", type=int, help="only the first LIMIT pairs")
    add_model_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_intermixed_args(arguments)


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from eval.cases import checksums, find_model
    from eval.measure import FaceClips
    from latentsync.faces.detector import build_detector
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.pipelines.options import LipsyncOptions
    from latentsync.weights import CHECKPOINTS, weights_path

    if parsed.limit is not None and parsed.limit < 1:
        raise InputError(f"--limit is {parsed.limit}: give 1 or more, or leave it out")
    pairs = read_pairs(parsed.pairs)[: parsed.limit]
    chosen = {option.name: getattr(parsed, option.name) for option in fields(LipsyncOptions) if option.name in parsed}
    named = (parsed.unet_config_path, parsed.inference_ckpt_path, parsed.vae_path, parsed.whisper_path)
    options = LipsyncOptions(**chosen, length="video")
    model = find_model(named, parsed.overrides, parsed.detector, parsed.device, parsed.dtype, options)
    device = resolve_device(parsed.device)
    boxes, landmarks = (weights_path(name, ROOT / CHECKPOINTS) for name in ("s3fd", "2dfan4"))
    clips = FaceClips(build_detector(parsed.detector, boxes, landmarks, device), TEMPLATE_RESOLUTION)
    meter = PeopleMeter(clips, load_face_mesh(FACE_MESH, device), fixed_mask(TEMPLATE_RESOLUTION, model.config.data.mask))
    videos = model.videos(parsed.output_dir / "generated")
    measured, failed = measure_all(pairs, videos, meter, parsed.output_dir / "sheets", parsed.output_dir / "stills")
    settings, rows = model.settings(), make_rows(measured)
    content = {
        "settings": settings,
        "weights": {**model.weights, **checksums({"face_mesh": FACE_MESH})},  # SHA-256 of each file that took part
        "rows": [{**json_value(row), "met": row.met} for row in rows],
        "failed": failed,
        "pairs": json_value(measured),
    }
    write_json(parsed.output_dir / "results.json", content)
    table = "\n\n".join([markdown_table(HEADER, (row.cells() for row in rows)), *make_notes(settings, measured, failed)]) + "\n"
    write_text(parsed.output_dir / "results.md", table)
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: settings of the process, and every failure in one sentence."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "the same command goes on with the pair that was in work.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
