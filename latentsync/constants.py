"""Numbers that the method fixes for training and inference alike: each with its unit and where it comes from."""

VERSION = "0.1.0"  # of the project; CHANGELOG.md says what is in it

# Time
VIDEO_FPS = 25  # frames a second: the rate the published networks were trained at
AUDIO_SAMPLE_RATE = 16_000  # samples a second, mono: what Whisper and SyncNet take
WHISPER_HOP_LENGTH = 160  # samples between two log-mel columns: 100 columns a second
WHISPER_MEL_PER_STEP = 2  # log-mel columns in one encoder step (its second convolution has stride 2)
WHISPER_STEPS_PER_SECOND = AUDIO_SAMPLE_RATE // (WHISPER_HOP_LENGTH * WHISPER_MEL_PER_STEP)  # 50

# Latents
LATENT_CHANNELS = 4  # channels of one VAE latent
LATENT_SCALE = 0.18215  # scaled latents = (sample - LATENT_SHIFT) * LATENT_SCALE
LATENT_SHIFT = 0.0
VAE_FACTOR = 8  # pixels a side that one latent cell covers
UNET_IN_CHANNELS = LATENT_CHANNELS + 1 + LATENT_CHANNELS + LATENT_CHANNELS  # noisy, mask, masked, reference: 13

# Networks
RGB = 3  # channels of a picture
SYNCNET_NORM_GROUPS = 32  # groups of the norms in SyncNet, which divide every width
ATTENTION_HEADS = 8  # heads of every attention layer, spatial, audio and temporal
MAX_FRAMES = 24  # rows of the published position tables of attention along time: the longest clip
MOTION_NORM_GROUPS = 32  # groups of the norms in attention along time, whatever those of the convolution blocks

# Faces
TEMPLATE_RESOLUTION = 256  # face size, in pixels, that the alignment template was drawn for
