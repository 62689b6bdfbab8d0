"""Reports: a run or a comparison as one page."""
