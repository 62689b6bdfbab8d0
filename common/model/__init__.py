"""The frozen base model, and the layout of what is trained on it."""
