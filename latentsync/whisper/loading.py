"""Whisper's encoder from a file of openai-whisper, or from a folder in the layout of Hugging Face."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whisper.model import AudioEncoder, ModelDimensions, Whisper

from latentsync.errors import WeightsError
from latentsync.weights import file_sha256, load_strict, read_checkpoint

CONFIG = "config.json"  # of a folder in the layout of Hugging Face
_NAMES = {  # of an encoder in transformers -> in openai-whisper
    r"^embed_positions\.weight$": "positional_embedding",
    r"^layer_norm\.": "ln_post.",
    r"^layers\.": "blocks.",
    r"\.self_attn\.q_proj\.": ".attn.query.",
    r"\.self_attn\.k_proj\.": ".attn.key.",
    r"\.self_attn\.v_proj\.": ".attn.value.",
    r"\.self_attn\.out_proj\.": ".attn.out.",
    r"\.self_attn_layer_norm\.": ".attn_ln.",
    r"\.fc1\.": ".mlp.0.",
    r"\.fc2\.": ".mlp.2.",
    r"\.final_layer_norm\.": ".mlp_ln.",
}


def load_whisper_encoder(path: Path) -> AudioEncoder:
    """Whisper's encoder, in float32 and ready for inference.

    Args:
        path: a torch file {"dims": ten integers, "model_state_dict": every entry of the whole model}, or a folder in the layout of Hugging
            Face (config.json and the weights), which is read by transformers; nothing is downloaded and no code in it is run.

    Raises:
        WeightsError: the file or folder is missing, unreadable, or not Whisper's.
    """
    path = Path(path)
    encoder = _from_folder(path) if path.is_dir() else _from_file(path)
    return encoder.float().eval().requires_grad_(False)


def whisper_sha256(path: Path, hint: str) -> str:
    """Checksum of an audio encoder's file, or of a folder's configuration and weights. Raises WeightsError with the `hint`."""
    if not path.is_dir():
        return file_sha256(path, hint)
    files = sorted(file for file in path.iterdir() if file.name == CONFIG or file.suffix in (".safetensors", ".bin"))
    return hashlib.sha256("".join(file_sha256(file, hint) for file in files).encode()).hexdigest()


def _from_file(path: Path) -> AudioEncoder:
    checkpoint = read_checkpoint(path)
    if not {"dims", "model_state_dict"} <= checkpoint.keys():
        advice = f"name its folder, {path.parent}" if (path.parent / CONFIG).is_file() else "use tiny.pt or small.pt as published"
        raise WeightsError(f"{path} is not a Whisper checkpoint (no 'dims' and 'model_state_dict' in it): {advice}.")
    try:
        dims = ModelDimensions(**checkpoint["dims"])
    except TypeError as error:
        raise WeightsError(f"{path} names sizes that Whisper does not know ({error}): use tiny.pt or small.pt as published.") from error
    model = Whisper(dims)
    load_strict(model, checkpoint["model_state_dict"], path, hint="it may be damaged: download it again")
    return model.encoder


def _from_folder(folder: Path) -> AudioEncoder:
    """The encoder of a folder that `WhisperModel.save_pretrained` or `WhisperForConditionalGeneration.save_pretrained` wrote."""
    from transformers import WhisperConfig, WhisperModel  # takes seconds to import

    advice = "name a folder such as that of openai/whisper-tiny, or a file of openai-whisper"
    if not (folder / CONFIG).is_file():
        raise WeightsError(f"{folder} is no folder of a Whisper model (no {CONFIG} in it): {advice}.")
    try:
        with _quiet_transformers():
            kind = WhisperConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type")
            if kind != WhisperConfig.model_type:
                raise WeightsError(f"{folder / CONFIG} describes {kind or 'another network'} and not {WhisperConfig.model_type}: {advice}.")
            model, told = WhisperModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except WeightsError:
        raise
    except Exception as error:  # transformers raises errors of many libraries for damaged files
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        if "weights_only" in reason:
            reason = "it holds Python objects besides tensors, which could run code"
        raise WeightsError(f"{folder} cannot be read as a Whisper model ({reason}): {advice}.") from error
    wrong = sorted(str(key) for key in (*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])))
    wrong = [key for key in wrong if key.startswith("encoder.")]
    if wrong:
        raise WeightsError(
            f"{folder} lacks {len(wrong)} entries of Whisper's encoder or has them in other shapes (such as {wrong[0]}): download it again."
        )
    config = model.config
    sizes = (config.num_mel_bins, config.max_source_positions, config.d_model, config.encoder_attention_heads, config.encoder_layers)
    encoder = AudioEncoder(*sizes)
    load_strict(encoder, {_name(key): value for key, value in model.encoder.state_dict().items()}, folder, advice)
    return encoder


def _name(key: str) -> str:
    for theirs, ours in _NAMES.items():
        key = re.sub(theirs, ours, key)
    return key


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without progress bars and warnings of transformers, which would stand between those of a command."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
