"""Adapts a classifier to a user's own classes: trains a new last layer on labelled images."""
