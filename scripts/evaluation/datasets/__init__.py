"""Reads labelled and unlabelled images in the layouts that people have them in."""

from scripts.evaluation.datasets.dataset import Dataset, Folders, Sample
from scripts.evaluation.datasets.opening import open_dataset, open_folders, open_unlabelled

__all__ = ["Dataset", "Folders", "Sample", "open_dataset", "open_folders", "open_unlabelled"]
