"""Training data: processed clips to typed batches."""
