"""The product: a video and a voice in, a lip-synced video out."""
