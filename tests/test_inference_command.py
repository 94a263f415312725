"""The inference command from files to files: a real face, real ffmpeg, real networks at tiny sizes."""

import json
import logging
import subprocess
import wave
from dataclasses import fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from skimage.data import astronaut

from benchmarks.write_random_checkpoint import write_checkpoint
from latentsync.constants import VERSION
from latentsync.errors import InputError
from latentsync.faces.plan import DAMAGED, NO_FACE, FacePlan, SkippedRun, Span, name_damage
from latentsync.media.audio import read_audio
from latentsync.media.files import read_table
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import VideoWriter
from latentsync.pipelines.build import build_pipeline
from latentsync.pipelines.layers import Line
from latentsync.pipelines.options import LipsyncOptions, option_table
from latentsync.pipelines.result import LipsyncResult, video_warnings
from latentsync.pipelines.timeline import frames_in
from scripts.inference import main
from scripts.jobs import JobSpec, read_jobs, run_batch, run_single, work_here

CONFIG = """
data: {resolution: 64, num_frames: 8}
model: {block_out_channels: [32, 32, 32, 32], layers_per_block: 1, cross_attention_dim: 64}
weights: {unet: latentsync_unet.pt, vae: sd-vae-ft-mse, whisper: whisper/tiny.pt}
"""
ROOT = Path(__file__).resolve().parents[1]
FACE = (slice(20, 232), slice(100, 300))  # rows and columns of the picture that the face, brow to chin, lies well inside of


def picture(k: int) -> np.ndarray:
    """A portrait (NASA, public domain) that drifts to the right: 256 rows, 384 columns."""
    return np.ascontiguousarray(astronaut()[:256, 40 - k : 424 - k])


def write_video(path: Path, frames: list[np.ndarray], fps: int = 25) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, fps, crf=5) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_sound(path: Path, seconds: float, rate: int = 22050) -> Path:
    """Chirps, louder and softer: sound whose place in time can be told."""
    t = np.arange(int(seconds * rate)) / rate
    samples = np.sin(2 * np.pi * (200 + 300 * t) * t) * (0.2 + 0.6 * (np.sin(2 * np.pi * 3 * t) > 0))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, len(t), "NONE", ""))
        file.writeframes((samples * 30000).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs and networks, in a folder whose name asks for trouble."""
    folder = tmp_path_factory.mktemp("in put 'é")
    write_checkpoint(folder, tiny=True)
    (folder / "config.yaml").write_text(CONFIG)
    write_video(folder / "-talk.mp4", [picture(k) for k in range(20)])
    write_video(folder / "gone.mp4", [picture(k) if k < 10 or k >= 22 else np.full((256, 384, 3), 90, np.uint8) for k in range(32)])
    write_video(folder / "nobody.mp4", [np.full((96, 128, 3), k, np.uint8) for k in range(10)])
    write_sound(folder / "words.wav", 0.97)
    return folder


def run(folder: Path, video: str, audio: str, output: Path, *more: str) -> int:
    arguments = ["--video_path", str(folder / video), "--audio_path", str(folder / audio), "--video_out_path", str(output)]
    settings = ["--unet_config_path", str(folder / "config.yaml"), "--inference_steps", "1", "--device", "cpu", "--quiet"]
    return main([f"{key}={value}" for key, value in zip(arguments[::2], arguments[1::2], strict=True)] + settings + list(more))


@pytest.fixture(scope="module")
def result(folder: Path) -> Path:
    """A sound of 24 frames and a bit on a video of 20 frames."""
    output = folder / "results" / "-out put.mp4"
    assert run(folder, "-talk.mp4", "words.wav", output, "--report") == 0
    return output


def test_the_result_is_as_long_as_the_sound_to_a_frame(result: Path) -> None:
    frames = list(VideoReader(result, None).frames())
    info = probe(result)
    assert len(frames) == 24
    assert info.video.average_fps == 25
    assert info.audio.sample_rate == 22050  # the user's own sound, not what the networks hear
    assert len(read_audio(result)) / 16000 == pytest.approx(24 / 25, abs=0.025)


def test_the_sound_is_the_users_and_in_step(folder: Path, result: Path) -> None:
    ours, theirs = read_audio(result), read_audio(folder / "words.wav")
    length = min(len(ours), len(theirs)) - 1600
    lags = range(-800, 801, 8)
    match = [float(np.dot(ours[800 + lag : length + lag], theirs[800:length])) for lag in lags]
    assert abs(lags[int(np.argmax(match))]) <= 16  # a thousandth of a second


def test_only_the_face_changes_and_the_video_turns_round(folder: Path, result: Path) -> None:
    source, made = list(VideoReader(folder / "-talk.mp4").frames()), list(VideoReader(result).frames())
    outside = np.ones(source[0].shape[:2], dtype=bool)
    outside[FACE] = False
    for shown, frame in ((0, 0), (19, 19), (19, 20), (16, 23)):
        difference = np.abs(source[shown].astype(int) - made[frame].astype(int))
        assert difference[outside].mean() < 2.5
        assert difference[~outside].mean() > 5


def test_the_report_says_what_was_done_and_nothing_else_is_left(folder: Path, result: Path) -> None:
    report = json.loads(result.with_suffix(".report.json").read_text())
    assert (report["frames"], report["source_frames"], report["generated"]) == (24, 20, 24)
    (span,) = report["spans"]
    assert (span["start"], span["stop"], span["shot"]) == (0, 20, 0)
    left, top, right, bottom = span["box"]
    assert 0 <= left < right <= report["width"] and 0 <= top < bottom <= report["height"]
    assert report["skipped"] == []
    assert report["versions"]["latentsync"] == VERSION
    assert any("forwards and backwards" in warning for warning in report["warnings"])
    stages = ("analyse", "align", "audio", "encode", "denoise", "decode", "composite", "write", "generate", "total")
    assert set(stages) <= report["seconds"].keys()
    assert {path.name for path in result.parent.iterdir()} == {"-out put.mp4", "-out put.report.json"}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_hole_in_the_sound_and_the_choice_of_a_track_reach_the_report(folder: Path, tmp_path: Path) -> None:
    silence = ["-f", "lavfi", "-i", "anullsrc=duration=0.5", "-i", f"file:{folder / 'words.wav'}"]
    hole = ["-map", "0", "-map", "1", "-filter:a:1", "asetpts=PTS+if(gte(T\\,0.5)\\,0.2/TB\\,0)", "-c:a", "pcm_s16le"]
    marks = ["-disposition:a:0", "0", "-disposition:a:1", "default", "-metadata:s:a:0", "language=ger"]
    subprocess.run(["ffmpeg", "-v", "error", *silence, *hole, *marks, str(tmp_path / "two.mka")], check=True)
    report = {}
    for name, more in {"default": [], "german": ["--audio_track=ger"]}.items():
        assert run(folder, "-talk.mp4", str(tmp_path / "two.mka"), tmp_path / f"{name}.mkv", "--report", *more) == 0
        report[name] = json.loads((tmp_path / f"{name}.report.json").read_text())
    assert report["default"]["frames"] == 29  # of 0.97 s of words and a hole of 0.2 s
    told = " ".join(report["default"]["warnings"])
    assert "a hole in its sound" in told and "number 1 is taken" in told
    assert len(read_audio(tmp_path / "default.mkv")) / 16000 == pytest.approx(29 / 25, abs=0.01)
    assert any("is silent" in warning for warning in report["german"]["warnings"])
    assert np.abs(read_audio(tmp_path / "german.mkv")).max() < 0.01
    assert run(folder, "-talk.mp4", str(tmp_path / "two.mka"), tmp_path / "none.mkv", "--audio_track=2") == 2


def test_frames_without_a_face_pass_through(folder: Path, tmp_path: Path) -> None:
    gone, output = folder / "gone.mkv", tmp_path / "out.mkv"  # this container tells no length of its picture
    remux = ["ffmpeg", "-v", "error", "-y", "-i", f"file:{folder / 'gone.mp4'}", "-i", f"file:{folder / 'words.wav'}"]
    subprocess.run([*remux, "-c:v", "copy", "-c:a", "flac", f"file:{gone}"], check=True)
    assert run(folder, "gone.mkv", "words.wav", output, "--length=video", "--lossless", "--report") == 0
    source, made = list(VideoReader(gone).frames()), list(VideoReader(output).frames())
    report = json.loads(output.with_suffix(".report.json").read_text())
    assert len(made) == len(source) == 32
    assert report["skipped"] == [{"start": 10, "stop": 22, "reason": "no face"}]
    assert report["warnings"] == ["Left as they are: frames 10-21 (0.4-0.9 s): no face."]
    changed = [(a != b).any() for a, b in zip(source, made, strict=True)]
    assert changed == [k < 10 or k >= 22 for k in range(32)]
    assert probe(output).audio.duration is None or probe(output).audio.duration == pytest.approx(32 / 25, abs=0.03)


def test_words_for_a_part_of_a_video(folder: Path, tmp_path: Path, caplog) -> None:
    output = tmp_path / "out.mkv"
    arguments = ["--start=0:00.4", "--overrun=warn", "--lossless", "--report"]
    assert run(folder, "-talk.mp4", "words.wav", output, "--start=0.4") == 2
    assert "its sound lasts 0.97 s and there are 0.40 s for it" in caplog.messages[-1]
    assert run(folder, "-talk.mp4", "words.wav", output, *arguments) == 0
    source, made = (list(VideoReader(path, None).frames()) for path in (folder / "-talk.mp4", output))
    assert [(a != b).any() for a, b in zip(source, made, strict=True)] == [k >= 10 for k in range(20)]
    report = json.loads(output.with_suffix(".report.json").read_text())
    assert [(line["start"], line["stop"], line["generated"]) for line in report["lines"]] == [(10, 20, 10)]
    sound = read_audio(output)
    assert len(sound) == 12800 and not sound[:6400].any() and np.abs(sound[6500:]).max() > 0.1


def test_damage_is_told() -> None:
    reader = SimpleNamespace(path="a.mp4", problem=None, fps=Fraction(25))
    span = Span(10, 12, 0, np.zeros((2, 2, 3), np.float32), np.zeros((2, 4), np.float32), np.ones(2))
    plan = name_damage(FacePlan(12, 1, 1, (span,), (SkippedRun(0, 10, NO_FACE),)), [(2, 10)])
    lines = [[Line(Path("a.wav"), np.zeros(1), LipsyncOptions())]]
    told = video_warnings(reader, lines, [plan], [(2, 10)], 12)
    assert "a.mp4 is damaged: the picture may be wrong in frames 2-9 (0.1-0.4 s)" in told[0]
    assert [(run.start, run.stop, run.reason) for run in plan.skipped] == [(0, 2, NO_FACE), (2, 10, DAMAGED)]


def test_the_docs_list_every_option() -> None:
    assert option_table() in (ROOT / "docs" / "options.md").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_video_whatever_the_batch(folder: Path, tmp_path: Path) -> None:
    options = {"one": ["--batch_clips=1"], "two": ["--batch_clips=3"], "other": ["--seed=7"]}
    made = {}
    for name, more in options.items():
        assert run(folder, "-talk.mp4", "words.wav", tmp_path / f"{name}.mkv", "--lossless", *more) == 0
        made[name] = np.stack(list(VideoReader(tmp_path / f"{name}.mkv").frames())).astype(int)
    assert np.abs(made["one"] - made["two"]).max() <= 1
    assert np.abs(made["one"] - made["other"]).max() > 1


def test_keep_fps(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "fast.mp4", [picture(k) for k in range(30)], fps=50)
    write_sound(tmp_path / "sound.wav", 0.5)
    assert run(folder, str(tmp_path / "fast.mp4"), str(tmp_path / "sound.wav"), tmp_path / "out.mp4", "--keep_fps") == 0
    info = probe(tmp_path / "out.mp4").video
    assert (info.average_fps, info.frame_count) == (50, 25)


@pytest.mark.parametrize(
    ("video", "audio", "sentence"),
    [
        ("nobody.mp4", "words.wav", "No face to work on"),
        ("words.wav", "words.wav", "only sound"),
        ("-talk.mp4", "-talk.mp4", "no audio track"),
        ("missing.mp4", "words.wav", "does not exist"),
        ("config.yaml", "words.wav", "not a media file"),
        ("-talk.mp4", "config.yaml", "not a media file"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(folder: Path, tmp_path: Path, caplog, video: str, audio: str, sentence: str) -> None:
    assert run(folder, video, audio, tmp_path / "out.mp4") == 2
    assert sentence in caplog.messages[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept(folder: Path, tmp_path: Path, caplog) -> None:
    kept = tmp_path / "mine.mp4"
    kept.write_bytes(b"precious")
    assert run(folder, "-talk.mp4", "words.wav", kept) == 2
    assert "--overwrite" in caplog.messages[-1]
    assert kept.read_bytes() == b"precious"
    assert run(folder, "-talk.mp4", "words.wav", folder / "-talk.mp4", "--overwrite") == 2  # never over an input
    assert run(folder, "-talk.mp4", "words.wav", kept, "--overwrite") == 0
    assert probe(kept).video


@pytest.mark.parametrize(
    "more",
    [
        ["--inference_steps=0"],
        ["--inference_steps=1000"],
        ["--face=somebody"],
        ["--batch_clips=0"],
        ["--device=abacus"],
        ["data.resolutoin=64"],
        ["--inference_ckpt_path=/does/not/exist.pt"],
    ],
)
def test_bad_options_are_refused(folder: Path, tmp_path: Path, more: list[str]) -> None:
    assert run(folder, "-talk.mp4", "words.wav", tmp_path / "out.mp4", *more) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_its_configuration_is_taken_for_the_newest_version(folder: Path, tmp_path: Path, caplog) -> None:
    paths = [f"--video_path={folder / '-talk.mp4'}", f"--audio_path={folder / 'words.wav'}", f"--video_out_path={tmp_path / 'out.mp4'}"]
    files = {"inference_ckpt_path": "latentsync_unet.pt", "vae_path": "sd-vae-ft-mse", "whisper_path": "whisper/tiny.pt"}
    with caplog.at_level(logging.INFO):
        assert main([*paths, *(f"--{name}={folder / path}" for name, path in files.items())]) == 2
    assert "version 1.6 is assumed" in caplog.text and "--unet_config_path" in caplog.text
    assert "stage2_512.yaml wants 384" in caplog.messages[-1]  # these tiny networks are of no published size


def test_jobs_go_on_after_a_failure_and_skip_what_is_done(folder: Path, tmp_path: Path, capsys) -> None:
    rows = [
        ("-talk.mp4", "words.wav", "a.mp4", "largest"),
        ("nobody.mp4", "words.wav", "b.mp4", ""),
        ("-talk.mp4", "words.wav", "c.mp4", "0"),
    ]
    lines = [f"{folder / video},{folder / audio},{output},{face}" for video, audio, output, face in rows]
    (tmp_path / "jobs.csv").write_text("video_path,audio_path,video_out_path,face\n" + "\n".join(lines) + "\n")
    arguments = [f"--jobs={tmp_path / 'jobs.csv'}", f"--unet_config_path={folder / 'config.yaml'}", "--inference_steps=1", "--quiet"]
    assert main(arguments) == 1
    assert "2 made, 1 failed, 0 skipped" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "c.mp4", "jobs.csv", "jobs.outcomes.csv"]
    first = {row["video_out_path"]: row for row in read_table(tmp_path / "jobs.outcomes.csv")}
    assert main(arguments) == 1
    assert "0 made, 1 failed, 2 skipped" in capsys.readouterr().out
    second = {row["video_out_path"]: row for row in read_table(tmp_path / "jobs.outcomes.csv")}
    told = {Path(path).name: (row["status"], row.get("frames"), row.get("reason", "")[:20]) for path, row in second.items()}
    assert told == {"a.mp4": ("made", "24", ""), "b.mp4": ("failed", None, "No face to work on i"), "c.mp4": ("made", "24", "")}
    assert [first[path]["seconds"] for path in second if "seconds" in second[path]] == [
        row["seconds"] for row in second.values() if "seconds" in row
    ]


def test_a_job_that_fails_unexpectedly_does_not_stop_the_others(folder: Path, tmp_path: Path, capsys, caplog) -> None:
    done: list[Path] = []

    class Fragile:
        """Stands in for a pipeline: it breaks on its first job."""

        face_cache = None

        def __call__(self, video: Path, audio: Path, output: Path, options: LipsyncOptions, callback: None, part: None) -> LipsyncResult:
            done.append(output)
            if len(done) == 1:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            numbers = {field.name: None for field in fields(LipsyncResult)} | {"seconds": {"total": 1.0}, "duration": 1.0}
            return LipsyncResult(**numbers | {"frames": 25, "generated": 25, "output_path": output})

    jobs = [JobSpec(folder / "-talk.mp4", folder / "words.wav", tmp_path / f"{k}.mp4", LipsyncOptions()) for k in range(3)]
    assert run_batch(jobs, tmp_path / "jobs.csv", partial(work_here, build=Fragile, write_report=False)) == 1
    assert done == [job.video_out_path for job in jobs]
    assert "2 made, 1 failed" in capsys.readouterr().out
    assert "illegal memory access" in caplog.text


def test_inputs_are_looked_at_before_models_are_loaded(folder: Path, tmp_path: Path) -> None:
    job = JobSpec(folder / "missing.mp4", folder / "words.wav", tmp_path / "a.mp4", LipsyncOptions())
    with pytest.raises(InputError, match="does not exist"):
        run_single(job, lambda: pytest.fail("the models were loaded"), write_report=False)


def test_jobs_of_a_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(
        "- {video_path: a.mp4, audio_path: b.wav, video_out_path: out/c.mp4, keep_fps: true, crf: 20, codec: }\n"
        "- {video_path: a.mp4, audio_path: b.wav, video_out_path: d.mp4, guidance_scale: 2}\n"
    )
    first, second = read_jobs(tmp_path / "jobs.yaml", LipsyncOptions(seed=5))
    assert first.video_out_path == tmp_path / "out" / "c.mp4"
    assert (first.options.keep_fps, first.options.crf, first.options.seed, first.options.codec) == (True, 20, 5, None)
    assert (second.options.keep_fps, second.options.guidance_scale) == (False, 2.0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_jobs_as_excel_saves_them(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ü.mp4").touch()
    lines = ("video_path;audio_path;video_out_path;guidance_scale;keep_fps", "in\\ü.mp4;.\\b.wav;made\\c ü.mp4;1,5; TRUE ", ";;;;", "")
    (tmp_path / "jobs.csv").write_bytes("\r\n".join(lines).encode(encoding))
    (job,) = read_jobs(tmp_path / "jobs.csv", LipsyncOptions())
    assert (job.video_path, job.audio_path) == (tmp_path / "in" / "ü.mp4", tmp_path / "b.wav")
    assert job.video_out_path == tmp_path / "made" / "c ü.mp4"
    assert (job.options.guidance_scale, job.options.keep_fps) == (1.5, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no jobs"),
        ("video_path: a.mp4\n", "list of jobs"),
        ("- {video_path: a, audio_path: b}\n", "video_out_path missing"),
        ("- {video_path: a, audio_path: b, video_out_path: c.mp4, stepz: 3}\n", "stepz is no option"),
        ("- {video_path: a, audio_path: b, video_out_path: c.mp4, keep_fps: perhaps}\n", "neither true nor false"),
        ("- {video_path: a, audio_path: b, video_out_path: c.mp4, crf: high}\n", "job 1"),
        ("- {video_path: a, audio_path: b, video_out_path: c.mp4, seed: 2.7}\n", "not a whole number"),
        (
            "- {video_path: a, audio_path: b, video_out_path: c.mp4}\n- {video_path: a, audio_path: b, video_out_path: c.mp4}\n",
            "more than once",
        ),
    ],
)
def test_a_wrong_jobs_file_is_refused(tmp_path: Path, caplog, text: str, sentence: str) -> None:
    (tmp_path / "jobs.yaml").write_text(text)
    assert main([f"--jobs={tmp_path / 'jobs.yaml'}"]) == 2
    assert sentence in caplog.messages[-1]


def test_progress_can_be_followed_and_stopped(folder: Path, tmp_path: Path) -> None:
    pipeline = build_pipeline(str(folder / "config.yaml"), device="cpu")
    assert pipeline.components.keys() == {"vae", "audio_encoder", "unet"}
    pipeline.set_progress_bar_config(disable=True)
    seen: list[tuple[str, int, int | None]] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        seen.append((stage, done, total))
        if (stage, done) == ("generate", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(folder / "-talk.mp4", folder / "words.wav", tmp_path / "out.mp4", LipsyncOptions(inference_steps=1), callback=stop)
    assert [entry for entry in seen if entry[0] == "analyse"][-1] == ("analyse", 20, 20)
    assert seen[-1] == ("generate", 5, 24)
    assert list(tmp_path.iterdir()) == []


def test_fractions_of_a_frame_round_to_the_nearest() -> None:
    assert [frames_in(Fraction(k, 1000), Fraction(25)) for k in (1, 19, 20, 59, 60, 100, 979, 980)] == [1, 1, 1, 1, 2, 3, 24, 25]
