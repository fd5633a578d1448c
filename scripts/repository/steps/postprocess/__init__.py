"""Logits to the best classes, their probabilities and their labels."""
