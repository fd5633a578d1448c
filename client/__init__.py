"""A client for image classifiers on Triton Inference Server: send image files, get labels.

from client import Classifier

with Classifier("localhost:8001", model="resnet50_v1") as classifier:
    for result in classifier.stream(["photos", "cat.jpg"]):
        print(result.source, result.error or result.top.label)

The installed package is named `triton_imagenet`: `from triton_imagenet import Classifier`.
"""

from ._classifier import AsyncClassifier, Classifier
from ._exceptions import (
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
from ._options import Tls
from ._results import Classification, Model, Prediction
from ._sources import SAMPLE, SUFFIXES, ImageFile, Source, expand

__version__ = "0.6.0"

__all__ = [
    "SAMPLE",
    "SUFFIXES",
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
