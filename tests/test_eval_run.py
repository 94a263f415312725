"""An evaluation from files to files: stand-ins for the model and the measures, everything else real; resuming, failures, the report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_fixtures import FRAMES, Copier, FixedFace, Grey, copying_subject, grey_metrics, write_clip
from media_fixtures import make_clip
from refusals import refused

from eval.compare import compare, read_results
from eval.compare import main as compare_main
from eval.config import EvaluationConfig, load_evaluation_config
from eval.measure import FaceClips, MetricResult, doubtful_sync, open_subject, rows_of
from eval.metrics.base import Case, Column
from eval.run import evaluate, main
from latentsync.errors import ConfigError, InputError
from latentsync.media.probe import probe

EXAMPLE = Path(__file__).parents[1] / "configs" / "evaluation.yaml"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good clips, one that no model can do, one that is broken."""
    folder = tmp_path_factory.mktemp("cli ps 'é")
    write_clip(folder / "one.mp4", 0)
    write_clip(folder / "two.mp4", 30)
    write_clip(folder / "stubborn.mp4", 10)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def configured(clips: Path, output: Path, *overrides: str) -> EvaluationConfig:
    path = clips.parent / "evaluation.yaml"
    path.write_text(json.dumps({"data": {"videos": clips.name}, "output": {"folder": str(output), "clips": 2}}))
    return load_evaluation_config(path, overrides)


@pytest.fixture(scope="module")
def first(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("first")
    evaluate(configured(clips, output), None, copying_subject(output, Copier()), grey_metrics())
    return output


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_everything_is_measured_beside_the_source(first: Path) -> None:
    found = results(first)
    assert len(found["pairs"]) == 6 and {"one", "two"} < set(found["cases"])
    rows = {(row["column"]["name"], row["kind"]): row for row in found["rows"]}
    error = rows["grey_error", "reconstruction"]
    assert error["generated"]["count"] == 2 and 0 < error["generated"]["value"] < 3 and error["reference"]["value"] == 0
    assert error["generated"]["low"] <= error["generated"]["value"] <= error["generated"]["high"]
    sets = rows["grey_set", "reconstruction"]
    assert sets["generated"]["value"] < 1 and abs(sets["reference"]["value"]) < 1e-6
    assert found["missing"] == [{"measure": "sharpness", "why": "checkpoints/sharp.pth is missing: get it from its authors."}]
    assert found["stand_ins"] == ["A copier."] and found["versions"]["torch"]


def test_what_fails_is_named_and_the_rest_is_done(first: Path) -> None:
    found = results(first)
    assert "stubborn" in found["failed"] and "on fire" in found["failed"]["stubborn"]
    assert [Path(name).name for name in found["refused"]] == ["broken.mp4"]
    fussy = found["cases"]["one"]["measures"]["fussy"]
    assert fussy["generated"] is None and "too short" in fussy["failed"]
    assert found["cases"]["two"]["measures"]["fussy"]["generated"] == {"fuss": 1.0}
    table = (first / "results.md").read_text()
    for words in ("stubborn", "broken.mp4", "too short", "sharpness", "NOT THOSE OF THE PUBLISHED"):
        assert words in table


def test_the_page_shows_everything(first: Path) -> None:
    page = (first / "report.html").read_text()
    media = sorted((first / "media").glob("*.mp4"))
    assert len(media) == 2 and all(f'src="media/{path.name}#t=' in page for path in media)
    info = probe(media[0])
    assert info.has_audio and (info.video.width, info.video.height) == (384, 144)
    for words in ("<svg", "A copier.", "not those of the published", "sharpness", "Frechet distance of grey levels", "on fire"):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_command_does_only_what_is_left(clips: Path, first: Path) -> None:
    copier, metrics = Copier(), grey_metrics()
    subject = copying_subject(first, copier)
    evaluate(configured(clips, first), None, subject, metrics)
    assert {name.split("__")[0] for name in copier.jobs} == {"stubborn"}  # failed before, so it is tried again
    assert metrics.metrics[0].runs == 0 and subject.face_clips.detector.seen == 0

    changed = grey_metrics()
    changed.metrics[0].protocol = "Other grey levels."
    evaluate(configured(clips, first, "output.clips=0"), 1, copying_subject(first, copier), changed)
    assert changed.metrics[0].runs == 2  # the video and its source
    assert list(results(first)["cases"]) == ["one"]
    evaluate(configured(clips, first), None, subject, grey_metrics())


def test_another_list_of_pairs_or_another_model_is_refused(clips: Path, first: Path) -> None:
    with pytest.raises(ConfigError, match="other pairs"):
        evaluate(configured(clips, first, "data.seed=8"), None, copying_subject(first, Copier()), grey_metrics())
    with pytest.raises(ConfigError, match="other weights, settings"):
        evaluate(configured(clips, first), None, copying_subject(first, Copier("negate")), grey_metrics())


def test_two_runs_are_compared_pair_by_pair(clips: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = tmp_path / "worse"
    evaluate(configured(clips, worse, "output.clips=0"), None, copying_subject(worse, Copier("lutyuv=y=val-20")), grey_metrics())
    assert compare_main([str(first), str(worse), f"--output={tmp_path / 'compare.md'}"]) == 0
    assert capsys.readouterr().out == (tmp_path / "compare.md").read_text()
    found = {(one["column"]["name"], one["kind"]): one for one in json.loads((tmp_path / "compare.json").read_text())["differences"]}
    error = found["grey_error", "reconstruction"]
    assert error["count"] == 2 and (error["better"], error["worse"]) == (0, 2) and 10 < error["low"] <= error["mean"] <= error["high"] < 30
    assert found["grey_level", "cross"]["better"] is None and found["grey_level", "cross"]["mean"] < -10

    same, _ = compare(results(first), results(first))
    assert {one["mean"] for one in same} == {0} and all(one["equal"] == one["count"] for one in same)
    other = results(first)
    other["pairs"][0]["source"] = "another"
    refused(InputError, "different pairs", lambda: compare(results(first), other))
    assert compare_main([str(first), str(tmp_path)]) == 2


def test_chunks_hold_both_videos_and_say_when_one_is_longer(clips: Path, tmp_path: Path) -> None:
    short, said = write_clip(tmp_path / "short.mp4", 5, frames=17), []
    face_clips = FaceClips(FixedFace(), 64)
    case = Case("case", short, clips / "one.mp4", clips / "one.mp4", "reconstruction")
    chunks = list(face_clips.chunks(case, said))
    assert [(chunk.start, len(chunk.frames)) for chunk in chunks] == [(0, 16), (16, 1)]
    assert chunks[1].faces.shape == (1, 64, 64, 3) and chunks[0].matrices.shape == (16, 2, 3) and chunks[0].has_face.all()
    assert f"17 frames and its source {FRAMES}" in said[0]
    real = chunks[0].reference()
    assert np.array_equal(real.frames, chunks[0].source_frames) and real.faces.equal(chunks[0].source_faces)
    assert not real.faces.equal(chunks[0].faces)
    said.clear()
    same = list(face_clips.chunks(replace(case, video=clips / "one.mp4"), said))
    assert said == [] and all(chunk.faces.equal(chunk.source_faces) for chunk in same)


def test_what_cannot_be_measured_is_refused(clips: Path, tmp_path: Path) -> None:
    dark = make_clip(tmp_path / "dark.mp4", picture="color=black:size=192x144:rate=25:duration=0.4")
    small = make_clip(tmp_path / "small.mp4", picture="color=gray:size=96x64:rate=25:duration=0.4")
    face_clips = FaceClips(FixedFace(), 64)
    refused(InputError, "no frame of it would get a new mouth", lambda: list(face_clips.chunks(Case("dark", dark, dark, dark, "cross"))))
    refused(InputError, "one size", lambda: list(face_clips.chunks(Case("small", small, clips / "one.mp4", small, "cross"))))


def test_the_command_refuses_in_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "evaluation.yaml"
    path.write_text("data: {videos: nowhere, kinds: [sideways]}\noutput: {folder: out}\n")
    assert main(["--config", str(path)]) == 2 and "data.kinds" in caplog.text
    path.write_text("data: {video: nowhere}\n")
    assert main(["--config", str(path)]) == 2 and "data.videos" in caplog.text
    path.write_text("data: {videos: nowhere}\noutput: {folder: out}\n")
    assert main(["--config", str(path), "--limit=0"]) == 2
    assert main(["--config", str(path), "--print_config"]) == 0


def test_old_names_are_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "evaluation.yaml"
    path.write_text("data: {videos: a, made: b}\nmeasures: {names: [own_sync]}\noutput: {folder: out}\n")
    found = load_evaluation_config(path)
    assert found.data.generated == tmp_path / "b" and found.measures.names == ["stable_sync"]
    assert "'data.generated' now" in caplog.text and "stable_sync now" in caplog.text


def test_results_of_older_versions_are_compared(first: Path, tmp_path: Path) -> None:
    text = (first / "results.json").read_text().replace('"generated"', '"made"').replace('"reference"', '"truth"')
    (tmp_path / "results.json").write_text(text.replace("Grey levels of", "Grey levels made of"))
    new = (first / "results.json").read_text().replace("Grey levels of", "Grey levels generated of")
    differences, _ = compare(read_results(tmp_path), json.loads(new))
    assert differences and all(found["mean"] == 0 for found in differences)


def test_the_example_says_the_defaults(tmp_path: Path) -> None:
    example = load_evaluation_config(EXAMPLE, ["data.videos=clips", f"output.folder={tmp_path}"])
    (tmp_path / "short.yaml").write_text("data: {kinds: [reconstruction, cross]}\n")
    assert example == load_evaluation_config(tmp_path / "short.yaml", ["data.videos=clips", f"output.folder={tmp_path}"])


def test_videos_generated_elsewhere_are_measured(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    write_clip(tmp_path / "made" / "one.mp4", 12)
    config = configured(clips, tmp_path / "out", f"data.generated={tmp_path / 'made'}", "data.kinds=[reconstruction]", "output.clips=0")
    subject = replace(open_subject(config, tmp_path / "out"), face_clips=FaceClips(FixedFace(), 64))
    evaluate(config, None, subject, grey_metrics())
    found = results(tmp_path / "out")
    assert list(found["cases"]) == ["one"] and found["settings"]["generated"] == str(tmp_path / "made")
    assert 8 < found["cases"]["one"]["measures"]["grey"]["generated"]["grey_error"] < 14
    assert "two.mp4 does not exist" in found["failed"]["two"]


def test_a_network_that_finds_sources_out_of_sync_is_named() -> None:
    offset = Column("sync_offset", "frames", "zero")
    readings = {name: MetricResult({"sync_offset": 0.0}, {"sync_offset": real}) for name, real in (("a", 9.0), ("b", -9.0))}
    measure = Grey("sync", "Listens.", (offset,))
    rows = rows_of(measure, {"a": "cross", "b": "cross"}, readings)
    found = [(row.column.name, row.generated.value, row.reference.value) for row in rows]
    assert found == [("sync_offset", 0, 0), ("sync_offset_size", 0, 9)]
    assert "9.0 frames out of sync" in doubtful_sync(rows)[0]
    assert doubtful_sync(rows_of(measure, {"a": "cross"}, {"a": MetricResult({"sync_offset": 9.0}, {"sync_offset": 1.0})})) == []
