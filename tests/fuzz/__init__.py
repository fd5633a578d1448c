"""Random image files: what decoding them may do, and how they are made."""
