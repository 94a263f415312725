"""What skin and eyes look like: textures painted from what they are made of."""
