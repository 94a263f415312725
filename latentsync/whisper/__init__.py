"""What the sound says at each video frame: Whisper's encoder, tapped at every depth."""
