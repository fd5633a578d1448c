"""The Python backend models of every ensemble, which are copied into the model repository.

They run inside Triton and import only NumPy, Pillow, cykooz-resizer, Triton's own module and each
other; on a GPU also CuPy and nvImageCodec.
"""
