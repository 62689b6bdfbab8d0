"""A run or a comparison as one page."""
