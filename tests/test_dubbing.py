"""Dubbing scripts: read, refused, planned in one pass, mixed; lines that leave each other and all other frames alone; runs that go on."""

import wave
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from faces_fixtures import square_face
from refusals import refused
from tiny_pipeline import CASE, KnownFaces, MemoryReader, MemoryWriter, reference_frames, reference_pipeline

from latentsync.errors import InputError
from latentsync.faces.appearance import describe_face
from latentsync.faces.plan import NO_LINE, FaceRequest, PlanBuilder
from latentsync.faces.selection import FaceChoice
from latentsync.media.audio import AudioSamples, read_audio
from latentsync.media.mix import FilmSound, MixedLine, SampleStore, mix, stretched
from latentsync.media.probe import probe
from latentsync.media.segments import SegmentedWriter, work_folder
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import AudioTrack, VideoWriter
from latentsync.models.syncnet import SyncNet
from latentsync.pipelines import lipsync_pipeline
from latentsync.pipelines.layers import Line, in_layers
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import LipsyncOptions, parse_time
from latentsync.pipelines.result import LineReport
from latentsync.pipelines.script import DubbingLine, DubbingScript, check_script, open_lines, place_of, read_script
from latentsync.pipelines.timeline import Part, pieces_within, segment_stops, separate_runs
from latentsync.sync_meter import SyncMeter

OPTIONS = LipsyncOptions(inference_steps=1, guidance_scale=1.0)
SRT = "1\n00:00:00,200 --> 00:00:00,600\none\n\n2\n00:00:01,000 --> 00:00:01,500\ntwo\n"


def write_sound(path: Path, seconds: float, level: float = 0.25, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        samples = level * np.sin(np.arange(round(seconds * rate)) * (2 * np.pi * 200 / rate))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two seconds, sounds of half a second, subtitles."""
    folder = tmp_path_factory.mktemp("film")
    sound = write_sound(folder / "original.wav", 2.0)
    with VideoWriter(folder / "film.mkv", 32, 32, 25, audio=AudioTrack(sound, 2.0)) as writer:
        for k in range(50):
            writer.write(np.full((32, 32, 3), 4 * k, np.uint8))
    for name in ("1", "2", "3"):
        write_sound(folder / f"{name}.wav", 0.5)
    (folder / "a.srt").write_text(SRT)
    (folder / "words.srt").write_text("one\ntwo\n")
    return folder


def script_of(folder: Path, text: str) -> DubbingScript:
    (folder / "dub.yaml").write_text(f"video: film.mkv\n{text}")
    script = read_script(folder / "dub.yaml", OPTIONS)
    check_script(script)
    return script


def test_a_script_as_it_is_written(folder: Path) -> None:
    lines = "- {start: 0:00:00.250, audio: 1.wav, face: left}\n- {cue: 2, audio: 2.wav, seed: 7, gain_db: -3}"
    script = script_of(folder, f"cues: a.srt\noriginal: -6\noutput: out.mp4\nlines:\n{lines}")
    assert [(line.start, line.end, line.audio.name) for line in script.lines] == [
        (Fraction(1, 4), None, "1.wav"),
        (Fraction(1), Fraction(3, 2), "2.wav"),
    ]
    assert (script.lines[0].options.face, script.lines[1].options.seed, script.lines[1].options.gain_db) == ("left", 7, -3)
    assert script.output == folder / "out.mp4" and script.options.original_gain == pytest.approx(0.501, abs=1e-3)
    cues = script_of(folder, 'cues: a.srt\naudio: "{cue}.wav"\noverrun: warn')
    assert [(line.start, line.audio) for line in cues.lines] == [(Fraction(1, 5), folder / "1.wav"), (Fraction(1), folder / "2.wav")]
    assert parse_time("1:02:03,5") == Fraction(7447, 2) and parse_time("62.5") == parse_time("1:02.5")


ONE = "- {start: 0.1, audio: 1.wav}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no lines"),
        (f"lines:\n{ONE}\n- {{start: 1, audio: 2.wav, fase: left}}", "line 2: fase is not known here"),
        (f"lines:\n{ONE}\n- {{start: 0, audio: 2.wav, face: left}}", "line 2: it starts at 0.00 s, before line 1"),
        ("lines:\n- {start: 0, end: 1, audio: 1.wav}\n- {start: 0.8, audio: 2.wav}", "line 2: line 1 has the same face"),
        (f"lines:\n{ONE}\n- {{start: 0.4, audio: 2.wav}}", "line 1: its sound lasts 0.50 s and there are 0.30 s for it"),
        (f"lines:\n{ONE}\n- {{start: 1.0, audio: 9.wav}}", "line 2: .*9.wav does not exist"),
        (f"lines:\n{ONE}\n- {{start: 5.0, audio: 2.wav}}", "line 2: it lies at 5.00 s and the video ends at 2.00 s"),
        (f"lines:\n{ONE}\n- {{start: 1.0, end: 4, audio: 2.wav}}", "line 2: it lies at 1.00 s and the video ends"),
        (f"lines:\n{ONE}\n- {{start: soon, audio: 2.wav}}", "line 2: 'soon' is no time"),
        (f"lines:\n{ONE}\n- {{audio: 2.wav}}", r"line 2: start \(or cue\) is missing"),
        (f"lines:\n{ONE}\n- {{start: 1.0, audio: 2.wav, face: bob}}", "line 2: 'bob' does not say which face"),
        (f"lines:\n{ONE}\n- {{start: 1.0, audio: 2.wav, face_ref: bob.jpg}}", "line 2: .*bob.jpg does not exist"),
        ('cues: words.srt\naudio: "{cue}.wav"', "holds no cues with times"),
        ("cues: a.srt\nlines:\n- {cue: 3, audio: 2.wav}", "line 1: there is no cue 3"),
        ('cues: a.srt\naudio: "{cue}.wav"\noverrun: stretch', "line 1: its sound lasts 0.50 s and there are 0.40 s"),
    ],
)
def test_bad_scripts_are_refused_with_the_number_of_the_line(folder: Path, text: str, sentence: str) -> None:
    refused(InputError, sentence, script_of, folder, text)


def test_words_that_are_too_long(folder: Path) -> None:
    lines = [DubbingLine(0.5, folder / "1.wav", 0.96)]
    how = {mode: DubbingScript(folder / "film.mkv", lines, replace(OPTIONS, overrun=mode)) for mode in ("warn", "stretch")}
    place = place_of(how["warn"], 0, Fraction(1, 2), Fraction(2))
    assert place.stop == 1 and "it goes on" in place.warning
    place = place_of(how["stretch"], 0, Fraction(1, 2), Fraction(2))
    assert float(place.stop) == 0.96 and place.tempo == pytest.approx(0.5 / 0.46)
    with open_lines(how["stretch"], Fraction(25), Fraction(2)) as ([line], [sound], [warning]):
        assert (line.start, line.stop) == (13, 24) and "8.7 % faster" in warning
        assert len(line.samples) / 16000 == pytest.approx(0.46 - 0.02, abs=0.003)  # the first frame comes 20 ms after the sound
        assert len(read_audio(sound.path)) / 16000 == pytest.approx(0.46, abs=0.003)


def test_lines_lie_in_the_film_to_a_sample(folder: Path, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "loud.wav", 0.5, 0.5, 48000)
    lines = [MixedLine(sound, probe(sound).audio, Fraction(1, 2), Fraction(1), 0.5)]
    assert mix(FilmSound.of(folder / "film.mkv", None, lines), lines, Fraction(2), 0.25, tmp_path / "mix.flac") == []
    original, mixed = read_audio(folder / "film.mkv"), read_audio(tmp_path / "mix.flac")
    assert len(mixed) == 32000
    outside = np.r_[0 : int(0.39 * 16000), int(1.11 * 16000) : 31000]
    assert np.abs(mixed - original[:32000])[outside].max() <= 1 / 32768
    middle = slice(int(0.6 * 16000), int(0.9 * 16000))
    words = read_audio(sound)[int(0.1 * 16000) : int(0.4 * 16000)]
    assert np.abs(mixed[middle] - (0.25 * original[middle] + 0.5 * words)).max() < 2e-3
    silent = FilmSound.of(write_sound(tmp_path / "bed.wav", 0.1), tmp_path / "bed.wav", lines)
    assert "too loud by" in mix(silent, [replace(lines[0], gain=4.0)], Fraction(1), 1.0, tmp_path / "loud.flac")[0]
    assert stretched(sound, probe(sound).audio, 1.1, tmp_path / "fast.wav").exists()


def test_kept_samples_are_those_of_the_recording(folder: Path) -> None:
    with SampleStore() as store, AudioSamples(folder / "1.wav") as samples:
        both = [store.add(samples), store.add(samples)]
        assert all(np.array_equal(one[:], samples[:]) for one in both) and len(store) == 2 * len(samples)


A, B = square_face(20, 50), square_face(200, 50)


def plans_of(frames: list, layers: list, cuts: tuple[int, ...] = ()) -> list:
    builder = PlanBuilder(256, 25.0, layers, "none")
    for index, faces in enumerate(frames):
        builder.add(faces, index in cuts)
    return builder.finish()


def request(face: str, start: int, stop: int | None, name: str = "line") -> FaceRequest:
    return FaceRequest(FaceChoice.parse(face), start, stop, name)


def test_many_requests_are_answered_in_one_pass() -> None:
    frames = [[square_face(20 + k, 50), B] for k in range(30)]
    left, right, whole = plans_of(frames, [[request("left", 3, 10), request("left", 12, 20)], [request("right", 5, 18)], []], (15,))[:3]
    assert [(span.start, span.stop, span.request, span.shot) for span in left.spans] == [(3, 10, 0, 0), (12, 15, 1, 0), (15, 20, 1, 1)]
    assert [(run.start, run.stop, run.reason) for run in left.skipped] == [(0, 3, NO_LINE), (10, 12, NO_LINE), (20, 30, NO_LINE)]
    assert [(span.start, span.stop) for span in right.spans] == [(5, 15), (15, 18)] and whole.spans == ()
    [alone] = plans_of(frames, [[request("left", 0, None)]], (15,))
    assert np.array_equal(left.spans[1].matrices, alone.spans[0].matrices[12:15]), "a track is smoothed from its own beginning"


def test_two_lines_that_mean_one_face_are_refused() -> None:
    layers = [[request("left", 0, 10, "line 1")], [request("0", 8, 12, "line 2")]]
    refused(InputError, r"line 2 and line 1 give one face words at 0\.32 s", plans_of, [[A, B]] * 20, layers)
    refused(InputError, "line 2: There is no face at", plans_of, [[A]] * 20, [[request("300,9@0.2", 0, 10, "line 2")]])


def test_a_person_is_found_by_a_picture() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(60, 200, (200, 320, 3)).astype(np.uint8)
    one, two = (replace(face, appearance=describe_face(picture, face.anchors)) for face in (A, B))

    def planned(reference: np.ndarray, frames: list) -> list:
        [plan] = plans_of(frames, [[FaceRequest(FaceChoice(reference=reference), name="line 4")]])
        return [float(span.boxes[0, 0]) for span in plan.spans] or [plan.skipped[0].reason]

    assert planned(two.appearance, [[one, two]] * 5) == [200.0] and planned(one.appearance, [[one, two]] * 5) == [20.0]
    assert planned(one.appearance, [[two]] * 5) == ["nobody who looks like the picture"]
    twin = replace(two, appearance=one.appearance)
    refused(InputError, "line 4: Two people look alike between 0.00 and 0.20 s", planned, one.appearance, [[one, twin]] * 5)


def test_layers_and_segments() -> None:
    lines = [Line(Path(), np.zeros(1), OPTIONS, *times) for times in ((0, 10), (5, 20), (10, 12), (30, 40))]
    assert [[line.start for line in layer] for layer in in_layers(lines)] == [[0, 10, 30], [5]]
    cuts = [[(0, 7, None), (7, 15, 0), (15, 23, 0), (23, 60, None)], [(0, 11, None), (11, 19, 0), (19, 60, None)]]
    stops = segment_stops(cuts, 60, 10)
    assert stops == [23, 33, 43, 53, 60]
    assert separate_runs(cuts, stops) == [range(0, 1), range(1, 2), range(2, 3), range(3, 4)]
    assert separate_runs([cuts[0], [(0, 20, None), (20, 36, 0), (36, 60, 0)]], [20, 36, 43, 60]) == [range(0, 1), range(1, 3)]
    assert list(pieces_within(cuts[0], 0, 23)) == cuts[0][:3] and list(pieces_within(cuts[0], 23, 33)) == [(23, 33, None)]


TOTAL = 12
ANCHORS = CASE["inputs"]["anchors (x,y) per source frame"]


@pytest.fixture(scope="module")
def pipeline() -> LipsyncPipeline:
    pipeline = reference_pipeline()
    pipeline.paste, pipeline.num_frames, pipeline.single_reference = "mask", 3, True
    pipeline.sync_meter = SyncMeter(MeanSyncNet(), resolution=16, num_frames=2, lower_half=True)
    return pipeline


class MeanSyncNet(SyncNet):
    """Embeddings of how bright rows are."""

    def __init__(self) -> None:
        super().__init__(8, torch.nn.AdaptiveAvgPool2d(1), torch.nn.AdaptiveAvgPool2d((8, 1)))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.visual_encoder(frames).mean(1).flatten(1), dim=1)

    def embed_audio(self, mel: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(mel.unflatten(2, (8, 10)).mean((1, 3, 4)), dim=1)


@pytest.fixture(scope="module")
def two_lines() -> list[Line]:
    speech = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    options = [replace(OPTIONS, seed=seed) for seed in (3, 4)]
    return [Line(Path("a.wav"), speech, options[0], 2, 8, 1, "line 1"), Line(Path("b.wav"), speech[3000:], options[1], 9, 10, 2, "line 2")]


class Segments(MemoryWriter):
    """Frames in memory, and the states between segments."""

    def __init__(self, frames: list[np.ndarray], state: dict[str, np.ndarray]) -> None:
        super().__init__(frames)
        self.state, self.states = state, {}

    def checkpoint(self, state: dict[str, np.ndarray]) -> None:
        self.states[len(self)] = state


def dubbed(pipeline: LipsyncPipeline, lines: list[Line], frames: list[np.ndarray], state: dict[str, np.ndarray]) -> Segments:
    pipeline.face_detector, writer = KnownFaces(ANCHORS), Segments(frames, state)
    pipeline.run(MemoryReader(reference_frames()), lines, writer, None, OPTIONS)
    return writer


def test_lines_leave_all_else_alone_and_a_run_goes_on_from_any_segment(
    pipeline: LipsyncPipeline, two_lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lipsync_pipeline, "SEGMENT_SECONDS", Fraction(4, 25))
    whole = dubbed(pipeline, two_lines, [], {})
    changed = [not np.array_equal(a, b) for a, b in zip(whole, reference_frames(), strict=True)]
    assert changed == [2 <= k < 8 or 9 <= k < 10 for k in range(TOTAL)]
    assert np.array_equal(dubbed(pipeline, two_lines[1:], [], {})[9], whole[9])
    assert sorted(whole.states) == [5, 9]
    for begin, state in whole.states.items():
        again = dubbed(pipeline, two_lines, whole[:begin], state)
        assert np.array_equal(again, whole)
        assert all(np.array_equal(again.states[stop]["0-sums"], whole.states[stop]["0-sums"]) for stop in again.states)
    assert whole.states[9]["0-sums"][0, 15, 1] == 5, "windows of two in the six frames of line 1"


def test_parts_that_are_made_apart_join_to_the_same_frames(
    pipeline: LipsyncPipeline, two_lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lipsync_pipeline, "SEGMENT_SECONDS", Fraction(4, 25))
    whole, path = dubbed(pipeline, two_lines, [], {}), tmp_path / "film.mkv"
    height, width = whole[0].shape[:2]
    open_video = partial(VideoWriter, width=width, height=height, fps=25, lossless=True)

    def make(part: Part | None) -> LineReport:
        pipeline.face_detector = KnownFaces(ANCHORS)
        writer = SegmentedWriter(path, "key", open_video, open_video(path), keep=False)
        result = pipeline.run(MemoryReader(reference_frames()), two_lines, lambda _: writer, None, OPTIONS, part=part)
        return result.lines[0]

    make(Part(1, 2))  # frames 5 to 9 alone, which begin within line 1
    assert sorted(entry.name for entry in work_folder(path).glob("0*")) == ["00001.mp4", "00001.npz"]
    make(Part(0, 2))
    assert make(None).sync_note.endswith("was made in parts") and not work_folder(path).exists()
    assert np.array_equal(list(VideoReader(path, None).frames()), written(whole, tmp_path / "whole.mkv", open_video))


def written(frames: list[np.ndarray], path: Path, open_video: Callable[..., VideoWriter]) -> list[np.ndarray]:
    """Frames as they come back from a file."""
    with open_video(path) as writer:
        for frame in frames:
            writer.write(frame)
    return list(VideoReader(path, None).frames())
