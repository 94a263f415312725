"""Video and sound files: probe, decode, encode, all through ffmpeg and all as streams. No torch here."""
