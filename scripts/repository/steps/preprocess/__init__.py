"""Turns image files into the tensor that a classifier takes."""
