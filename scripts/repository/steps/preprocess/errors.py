"""The reasons why an image is not classified."""


class ImageError(ValueError):
    """The bytes are not an image that can be classified; the message says why."""


class Busy(RuntimeError):
    """Other large images are being decoded; the same request may succeed later."""
