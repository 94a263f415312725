"""Sentences, voices, phones with their times, and the mouth that goes with them."""
