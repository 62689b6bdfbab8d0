"""What turns sums into releases."""
