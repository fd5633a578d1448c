"""What can go wrong between an image and its labels.

ClientError
  ServerUnavailable     no server answers there, or not in time
  ModelNotFound         the server does not have this model
  InvalidRequest        the server refuses the request: asking again is of no use
    InvalidImage        ... because this source is no image
  ServerFailed          the server took the request and failed
"""


class ClientError(Exception):
    """The root of the hierarchy: `except ClientError` catches everything this package raises.

    `model` is the model that was asked and `source` the name of the image it was asked about,
    or None where the failure is not one image's.
    """

    def __init__(
        self, message: str, *, model: str | None = None, source: str | None = None
    ) -> None:
        super().__init__(message)
        self.model = model
        self.source = source


class ServerUnavailable(ClientError):
    """No server answers at the URL, or not in time; later it may."""


class ModelNotFound(ClientError):
    """The server does not have the model, or has not loaded it."""


class InvalidRequest(ClientError):
    """The server refuses the request, such as a `top_k` above the number of classes."""


class InvalidImage(InvalidRequest):
    """A source cannot be read, or is no image that the server decodes."""


class ServerFailed(ClientError):
    """The server took the request and failed."""
