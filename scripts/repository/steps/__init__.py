"""The Python backend steps of every ensemble, copied into the model repository as they are.

They run inside Triton, so they import NumPy, Pillow, Triton's own module and each other, and
nothing else of this project.
"""
