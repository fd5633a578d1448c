"""What can be classified, and how it becomes the bytes of an image file."""

from pathlib import Path

from client._exceptions import InvalidImage

Source = str | Path | bytes

# A cat, so that there is something to classify before any image is at hand.
SAMPLE = Path(__file__).parent / "sample" / "chelsea.jpg"


def name_of(source: Source) -> str:
    """Name a source in results and errors."""
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def read(source: Source) -> bytes:
    """Get an image file's bytes.

    Raises:
        InvalidImage: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InvalidImage(str(error.strerror), source=str(source)) from error
