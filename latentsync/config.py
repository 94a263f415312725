"""The dataclasses behind the YAML files: sizes of the networks and of the clips they see."""

from dataclasses import dataclass, field


@dataclass
class UNetConfig:
    """Sizes of the denoiser; everything else about it is fixed by the method."""

    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])  # width of each level
    layers_per_block: int = 2
    norm_num_groups: int = 32  # groups of the convolution blocks' norms
    cross_attention_dim: int = 384  # width of an audio token: 384 for Whisper tiny, 768 for small
    use_motion_module: bool = True  # attention along time
    motion_module_decoder_only: bool = False  # ... in the up path alone


@dataclass
class DataConfig:
    """What one clip is: picture size, frames, how much sound each frame hears, what is hidden."""

    resolution: int = 256  # side of the aligned face, pixels
    num_frames: int = 16  # frames in a clip
    audio_feat_length: list[int] = field(default_factory=lambda: [2, 2])  # video frames of sound heard before and after each frame
    mask: str = "mask"  # which fixed mask: "mask", "mask2", "mask3", "mask4"
