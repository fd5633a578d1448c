"""Commands that make, run and measure a Triton server for image classifiers."""

import os

# onnxruntime reads this when it is imported. Otherwise it reports to Microsoft on which machine it
# runs what. The processes of the server inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
