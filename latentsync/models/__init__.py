"""The networks: the denoiser, the codec between pixels and latents, and the loading of their files."""
