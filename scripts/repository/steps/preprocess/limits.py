"""Limits: how large an image may be to be decoded."""

import json
from dataclasses import asdict, dataclass, fields

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one image may take. It is estimated from the file's header, before decoding.

    Attributes:
        max_bytes: the length of the file in bytes, after base64 is decoded.
        max_pixels: width times height.
        max_side: the larger of width and height in pixels.
        max_memory: bytes for decoding. Large images that are decoded at the same time, in all
            processes of a server, share it.
        max_seconds: processor time for decoding in seconds.

    Raises:
        ValueError: a limit is not positive.
    """

    max_bytes: int = 48 * MIB
    max_pixels: int = 100_000_000
    max_side: int = 65_535
    max_memory: int = 448 * MIB
    max_seconds: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive")

    def to_json(self) -> str:
        """Write the limits as the value of the step's `limits` parameter."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Limits":
        """Read the output of `to_json`."""
        return cls(**json.loads(text))
