"""A client for image classifiers on a Triton server: send image files, get labels.

from client import Classifier

with Classifier("localhost:8001", model="resnet50_v1") as classifier:
    print(classifier.image("cat.jpg").top.label)
"""

from client._classifier import Classifier
from client._exceptions import (
    ClientError,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    ServerFailed,
    ServerUnavailable,
)
from client._results import Classification, Prediction
from client._sources import SAMPLE, Source, expand

__all__ = [
    "SAMPLE",
    "Classification",
    "Classifier",
    "ClientError",
    "InvalidImage",
    "InvalidRequest",
    "ModelNotFound",
    "Prediction",
    "ServerFailed",
    "ServerUnavailable",
    "Source",
    "expand",
]
