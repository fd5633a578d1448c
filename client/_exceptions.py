"""What can go wrong between an image and its labels.

ClientError
  ServerUnavailable     no server answers there, or none that can take the request now
    DeadlineExceeded    ... or not in time
    ModelNotReady       ... or the model is being loaded or unloaded
  ModelNotFound         the server does not have this model
  AccessDenied          the server wants a header that it did not get, such as a token
  InvalidRequest        the server refuses the request: asking again is of no use
    InvalidImage        ... because this source is no image
  ServerFailed          the server took the request and failed

Only ServerUnavailable and its kinds are worth another try, and get one.
"""


class ClientError(Exception):
    """The root of the hierarchy: `except ClientError` catches everything this package raises.

        try:
            result = classifier.image("cat.jpg")
        except ClientError as error:
            print(error.source, error.model, error.request_id, error)

    `model` is the model that was asked, `source` the name of the image it was asked about and
    `request_id` what the server's log calls the request; each is None where there is none.
    """

    model: str | None = None
    source: str | None = None
    request_id: str | None = None


class ServerUnavailable(ClientError):
    """No server answers at the URL, or none that takes the request now; later one may.

    Classifier(url, retries=10)  # or wait_until_ready()
    """


class DeadlineExceeded(ServerUnavailable):
    """The server did not answer in time.

    Classifier(url, timeout=60)
    """


class ModelNotReady(ServerUnavailable):
    """The server knows the model, but has not loaded it, or not yet.

    classifier.wait_until_ready()
    """


class ModelNotFound(ClientError):
    """The server does not have the model.

    [model.name for model in classifier.models()]  # what it has
    """


class AccessDenied(ClientError):
    """The server, or a proxy before it, wants a header that it did not get.

    Classifier(url, headers={"Authorization": "Bearer TOKEN"})
    """


class InvalidRequest(ClientError):
    """The server refuses the request, as one that asks for more classes than the model has.

    Classifier(url, top_k=1001)
    """


class InvalidImage(InvalidRequest):
    """A source cannot be read, or is no image that the server decodes.

        except InvalidImage as error:
            print(error.source, error)

    `position` is its place in the batch, from 0, where there is one.
    """

    position: int | None = None


class ServerFailed(ClientError):
    """The server took the request and failed.

    error.request_id  # is where to look in its log
    """
