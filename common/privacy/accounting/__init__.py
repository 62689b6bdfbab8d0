"""What events cost: epsilon, from the privacy loss distribution or Renyi divergences."""
