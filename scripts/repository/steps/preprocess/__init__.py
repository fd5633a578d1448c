"""Image bytes to the tensor that a classifier takes."""
