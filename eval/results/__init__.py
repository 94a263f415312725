"""What evaluations leave behind for programs and for reading."""
