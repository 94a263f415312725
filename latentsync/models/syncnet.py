"""`SyncNet`: two encoders whose outputs point the same way where a mouth belongs to a sound (arXiv 2412.09262)."""

import torch.nn.functional as F
from torch import Tensor, nn


class SyncNet(nn.Module):
    """What both kinds of SyncNet are. Encoders give b d 1 1, none of it negative; embeddings are unit vectors.

    Attributes:
        width: d, numbers in an embedding.
        visual_encoder: of frames b (f c) h w.
        audio_encoder: of mel windows b 1 80 t.
    """

    def __init__(self, width: int, audio_encoder: nn.Module, visual_encoder: nn.Module) -> None:
        super().__init__()
        self.width = width
        self.audio_encoder = audio_encoder
        self.visual_encoder = visual_encoder

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Frames b (f c) h w, frame by frame, and mel b 1 80 t -> unit vectors of both, b d each."""
        return self.embed_frames(frames), self.embed_audio(mel)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Frames b (f c) h w -> unit vectors b d."""
        return F.normalize(self.visual_encoder(frames).flatten(1), eps=1e-12)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Mel windows b 1 80 t -> unit vectors b d."""
        return F.normalize(self.audio_encoder(mel).flatten(1), eps=1e-12)
