"""Turns logits into the top-k classes, their probabilities and their labels."""
