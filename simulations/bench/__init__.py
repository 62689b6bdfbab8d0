"""Speed and memory beside central training and peers."""
