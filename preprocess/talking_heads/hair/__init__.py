"""Hair as strands: styles, growth, brows, lashes and beards."""
