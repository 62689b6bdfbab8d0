"""What a run promises: derived, written down, and said in words."""
