"""What runs in the consumer: open streams, workers as they are seen from there, and recipes that are sent."""
