"""Training: one loop for SyncNet and denoiser, that resumes exactly."""
