"""A Whisper checkpoint file to its encoder."""

from pathlib import Path

from whisper.model import AudioEncoder, ModelDimensions, Whisper

from latentsync.errors import WeightsError
from latentsync.weights import load_strict, read_checkpoint


def load_whisper_encoder(path: Path) -> AudioEncoder:
    """The encoder of a file in Whisper's format, in float32 and ready for inference.

    Args:
        path: a torch file {"dims": ten integers, "model_state_dict": every entry of the whole model}.

    Raises:
        WeightsError: the file is missing, unreadable, or not Whisper's.
    """
    checkpoint = read_checkpoint(path)
    if not {"dims", "model_state_dict"} <= checkpoint.keys():
        raise WeightsError(
            f"{path} is not a Whisper checkpoint (no 'dims' and 'model_state_dict' in it): use tiny.pt or small.pt as published."
        )
    try:
        dims = ModelDimensions(**checkpoint["dims"])
    except TypeError as error:
        raise WeightsError(f"{path} names sizes that Whisper does not know ({error}): use tiny.pt or small.pt as published.") from error
    model = Whisper(dims)
    load_strict(model, checkpoint["model_state_dict"], path, hint="it may be damaged: download it again")
    return model.encoder.float().eval().requires_grad_(False)
