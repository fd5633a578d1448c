"""A client for image classifiers on a Triton server: send image files, get labels.

from client import Classifier

with Classifier("localhost:8001", model="resnet50_v1") as classify:
    for result in classify.stream(["photos", "cat.jpg"]):
        print(result.source, result.error or result.top.label)
"""

from client._classifier import AsyncClassifier, Classifier
from client._exceptions import (
    AccessDenied,
    ClientError,
    DeadlineExceeded,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    ServerFailed,
    ServerUnavailable,
)
from client._results import Classification, Model, Prediction
from client._settings import Tls
from client._sources import SAMPLE, ImageFile, Source, expand

__all__ = [
    "SAMPLE",
    "AccessDenied",
    "AsyncClassifier",
    "Classification",
    "Classifier",
    "ClientError",
    "DeadlineExceeded",
    "ImageFile",
    "InvalidImage",
    "InvalidRequest",
    "Model",
    "ModelNotFound",
    "ModelNotReady",
    "Prediction",
    "ServerFailed",
    "ServerUnavailable",
    "Source",
    "Tls",
    "expand",
]
