"""Who takes part, how an update is clipped and summed, and the noise that makes a sum public."""
