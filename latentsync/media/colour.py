"""One place for YUV <-> RGB: reading and writing use the same matrix and range, so a frame that nobody touches stays as it was."""

from latentsync.media.ffmpeg import Colour

# swscale's fast YUV -> RGB path is 1.1 grey levels too dark (measured on BT.709 video); through planar RGB it rounds correctly,
# at 3 ms more a frame of 1280x720. Writing rounds correctly with `accurate_rnd`.
_READ_FLAGS = "bilinear"
_STRETCH_FLAGS = "bicubic"
_WRITE_FLAGS = "area+accurate_rnd+full_chroma_inp"
UNTAGGED_SPACE = "smpte170m"  # what ffmpeg takes untagged video for, whatever its size
NEW_SPACE = "bt709"  # for a picture that never was YUV (gif, RGB) or has no source
_SCALE_NAMES = {  # ffmpeg's colour spaces -> the names that its scale filter knows
    "bt709": "bt709", "fcc": "fcc", "bt470bg": "bt601", "smpte170m": "bt601", "smpte240m": "smpte240m",
    "bt2020nc": "bt2020", "bt2020c": "bt2020",
}  # fmt: skip


def read_filters(colour: Colour, width: int, height: int, *, stretched: bool) -> str:
    """ffmpeg filters from decoded video to RGB of `width` x `height`."""
    flags = _STRETCH_FLAGS if stretched else _READ_FLAGS
    matrix = _SCALE_NAMES.get(colour.space or UNTAGGED_SPACE, "bt601")
    return f"scale={width}:{height}:in_color_matrix={matrix}:in_range={colour.range or 'tv'}:flags={flags},format=gbrp,format=rgb24"


def written(source: Colour | None) -> Colour:
    """Tags for a YUV file whose frames came from a file tagged `source` (None: from nowhere)."""
    if source is None or source.space == "gbr":
        primaries = source.primaries if source else None
        transfer = source.transfer if source else None
        return Colour("tv", NEW_SPACE, primaries or NEW_SPACE, transfer or NEW_SPACE)
    space = "bt2020nc" if source.space == "bt2020c" else source.space
    known = space is None or space in _SCALE_NAMES
    return Colour(source.range, space if known else None, source.primaries, source.transfer)


def write_filters(colour: Colour, pixel_format: str) -> str:
    """ffmpeg filters from RGB frames to YUV in `pixel_format` with the tags `colour`."""
    matrix = _SCALE_NAMES[colour.space or UNTAGGED_SPACE]
    return f"scale=out_color_matrix={matrix}:out_range={colour.range or 'tv'}:flags={_WRITE_FLAGS},format={pixel_format}"


def tag_options(colour: Colour) -> dict[str, str]:
    """ffmpeg output options that write the tags; absent tags stay absent."""
    options = {
        "color_range": colour.range,
        "colorspace": "rgb" if colour.space == "gbr" else colour.space,
        "color_primaries": colour.primaries,
        "color_trc": colour.transfer,
    }
    return {name: value for name, value in options.items() if value}
