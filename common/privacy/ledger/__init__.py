"""The durable record of what a population has spent."""
