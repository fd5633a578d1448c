"""What goes into a model repository: models, preprocessing steps and their configuration."""
