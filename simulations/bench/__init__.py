"""Speed and memory compared with central training and peers."""
