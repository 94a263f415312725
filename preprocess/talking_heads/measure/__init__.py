"""What rendered clips are worth, in numbers: detection, tracking, diversity, speed."""
