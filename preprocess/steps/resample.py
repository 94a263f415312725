"""Step 2: any video -> 25 upright, square-pixel, 8-bit frames a second and 16 kHz mono sound, in one good encode."""

from pathlib import Path

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError, OutputError
from latentsync.media.audio import AudioSamples
from latentsync.media.probe import NEW_SPACE, Colour, VideoStream, probe, tag_options
from preprocess.clip_writer import ENCODE_SETTINGS, PICTURE, SOUND, clip_path, media_input, open_recording, write_clip
from preprocess.step import ClipFile, ClipProcessor, Kept, Options, Outcome, Settings, StepDefinition


def resample(clip: ClipFile, folder: Path) -> Outcome:
    """Sound and picture begin together with the first picture; sound before it is left out."""
    info = probe(clip.path)
    video, audio = info.require_video(), info.require_audio()
    source, target = media_input(clip.path, reinit_filter=0), clip_path(folder, clip.name)
    colour = Colour("tv", NEW_SPACE, video.colour.primaries, video.colour.transfer)
    start = 0.0 if video.start_time is None else video.start_time - info.start_time  # seconds to its first picture
    with AudioSamples(clip.path) as samples:  # holes in the clock of the sound are filled with silence
        sound = f"{samples.mix}asetpts=PTS-{start:.6f}/TB,aresample={AUDIO_SAMPLE_RATE}:async=1:first_pts=0"
    filters = {"vf": picture_filters(video, start), "af": sound}
    try:
        write_clip(target, [source[str(video.index)], source[str(audio.index)]], {**PICTURE, **SOUND, **filters, **tag_options(colour)})
    except OutputError:
        raise
    except LatentSyncError as error:  # what ffmpeg stumbled over is this file
        raise InputError(str(error)) from None
    frames, result = open_recording(target).frames, probe(target).require_video()
    return [Kept(target, {"frames": frames, "duration": frames / VIDEO_FPS, "width": result.width, "height": result.height})]


def picture_filters(video: VideoStream, start: float) -> str:
    """ffmpeg filters from decoded pictures to plain ones: rate by time, square pixels, even sides (an odd last row or column goes)."""
    width, height, aspect = video.width, video.height, video.sample_aspect
    width, height = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    steps = [
        *(["bwdif=mode=send_frame:deint=interlaced"] if video.interlaced else []),
        f"fps={VIDEO_FPS}:start_time={start:.6f},setpts=PTS-STARTPTS",
        f"scale={width}:{height}:out_color_matrix={NEW_SPACE}:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int",
        f"crop={width - width % 2}:{height - height % 2}:0:0,setsar=1,format=yuv420p",
    ]
    return ",".join(steps)


def resample_settings(options: Options, checkpoints: Path) -> Settings:
    return ENCODE_SETTINGS


def open_resample(settings: Settings, checkpoints: Path, device: str) -> ClipProcessor:
    return resample


STEP = StepDefinition("resample", open_resample, "resampled", settings=resample_settings)
