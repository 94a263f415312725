"""What training wants less of."""
