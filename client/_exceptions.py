"""The exceptions that this package raises.

ClientError
  ServerUnavailable     no server responds, or none accepts the request at the moment
    DeadlineExceeded    the response did not arrive in time
    ModelNotReady       the model is being loaded or unloaded
  ModelNotFound         the server does not have the model
  AccessDenied          a required header, such as a token, is missing or wrong
  InvalidRequest        the server rejected the request; a retry cannot succeed
    InvalidImage        the source cannot be read or is not an image
  ServerFailed          the server accepted the request and failed

Only ServerUnavailable and its subclasses are retried.
"""


class ClientError(Exception):
    """The base class: `except ClientError` catches everything that this package raises.

        try:
            result = classifier.image("cat.jpg")
        except ClientError as error:
            print(error.source, error.model, error.request_id, error)

    `source` is the name of the image, `model` the name of the model, and `request_id` the id of
    the request in the server's log; each is None where it does not apply.
    """

    model: str | None = None
    source: str | None = None
    request_id: str | None = None


class ServerUnavailable(ClientError):
    """No server responds at the URL, or none accepts the request at the moment.

    Classifier(url, retries=10)  # or wait_until_ready()

    `reconnect` is whether the server process at the other end of the connection is stopping or
    broken: the retry then uses a new connection, which reaches the process that replaces it.
    """

    reconnect: bool = False


class DeadlineExceeded(ServerUnavailable):
    """The server did not respond in time.

    Classifier(url, timeout=60)
    """


class ModelNotReady(ServerUnavailable):
    """The server has the model, but it is not loaded.

    classifier.wait_until_ready()
    """


class ModelNotFound(ClientError):
    """The server does not have the model.

    [model.name for model in classifier.models()]  # the models it has
    """


class AccessDenied(ClientError):
    """The server, or a proxy in front of it, requires a header that is missing or wrong.

    Classifier(url, headers={"Authorization": "Bearer TOKEN"})
    """


class InvalidRequest(ClientError):
    """The server rejected the request, for example because `top_k` exceeds the number of classes.

    Classifier(url, top_k=1001)
    """


class InvalidImage(InvalidRequest):
    """A source cannot be read, or the server cannot decode it.

        except InvalidImage as error:
            print(error.source, error)

    `position` is the image's index in the batch, from 0, if the server rejected it.
    """

    position: int | None = None


class ServerFailed(ClientError):
    """The server accepted the request and failed.

    error.request_id  # find the request in the server's log
    """
