"""What runs in a worker: its loop, what it sends, and recipes that came."""
