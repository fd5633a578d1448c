"""Recognises files that are given instead of ONNX files by mistake."""

EXPORT = "export it with torch.onnx.export"

# First bytes, at an offset, and what to do with such a file.
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer; run: git lfs pull"),
    (
        0,
        b"\x89HDF\r\n",
        'is HDF5, as Keras writes; export it with model.export("model.onnx", format="onnx")',
    ),
    (4, b"TFL3", "is TensorFlow Lite; convert it with python -m tf2onnx.convert --tflite"),
    (4, b"ORTM", "is in onnxruntime's ORT format; give the .onnx file that it was made from"),
    (0, b"ptrt", "is a TensorRT engine; give the .onnx file that it was made from"),
    (0, b"ftrt", "is a TensorRT engine; give the .onnx file that it was made from"),
    (8, b'{"', f"has weights only (safetensors); load them into the model and {EXPORT}"),
    (0, b"\x1f\x8b", "is compressed (gzip); unpack it"),
    (0, b"7z\xbc\xaf", "is a 7z archive; unpack it"),
    (257, b"ustar", "is a tar archive; unpack it"),
    (0, b"\x80\x02", f"is a Python pickle, as PyTorch writes; {EXPORT}"),
    (0, b"\x80\x04", f"is a Python pickle, as PyTorch writes; {EXPORT}"),
)
TEXT = 1024  # bytes in which text is recognised
# Names inside zip archives, with what such an archive is.
IN_ZIP = (
    (b"/data.pkl", f"is a PyTorch file; {EXPORT}"),
    (
        b"model.weights.h5",
        'is a Keras file; export it with model.export("model.onnx", format="onnx")',
    ),
)


def reason_not_onnx(data: bytes) -> str | None:
    """Say what a file is that is not ONNX, and what to do; None if it may be ONNX."""
    if not data.strip(b"\0"):
        return "is empty; export or download it again"
    for test in (_by_signature, _zip, _text):
        if reason := test(data):
            return reason
    return None


def _by_signature(data: bytes) -> str | None:
    for offset, signature, reason in SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return reason
    return None


def _zip(data: bytes) -> str | None:
    if not data.startswith(b"PK\x03\x04"):
        return None
    return next((reason for name, reason in IN_ZIP if name in data), "is a zip archive; unpack it")


def _text(data: bytes) -> str | None:
    start = data[:TEXT].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"<":
        page = start.lower()
        if b"<html" in page or b"<!doctype" in page:
            return "is a web page, not an ONNX file; download the file that the page shows"
        return "is XML, not an ONNX file (of OpenVINO?); give the .onnx file that it was made from"
    if start[:1] in {b"{", b"["}:
        return "is JSON, not an ONNX file"
    if len(data) < TEXT and start.isascii() and start.rstrip().decode().isprintable():
        return "is text, not an ONNX file (a link that was copied as text?); copy the file itself"
    return None
