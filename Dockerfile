# To pin an image by its digest, set these arguments to NAME:TAG@sha256:DIGEST (docs/docker.md).
ARG PYTHON_IMAGE=python:3.12-slim
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.11-py3

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /app
COPY docker/build.lock /tmp/
# A new named volume takes the owner of the directory over which it is mounted.
RUN pip install --no-cache-dir --require-hashes -r /tmp/build.lock \
    && install -d -o 1000 -g 1000 /cache /models
COPY scripts scripts
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/cache
USER 1000:1000
ENTRYPOINT ["python", "-m", "scripts.build_repository"]

FROM ${TRITON_IMAGE} AS server
ARG PREPROCESS=cpu
COPY docker/steps-cpu.lock docker/steps-gpu.lock /tmp/
# Triton's Python backend uses the system Python, which Ubuntu protects against pip.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 \
    python3 -m pip install --no-cache-dir --require-hashes -r "/tmp/steps-${PREPROCESS}.lock" \
    && install -d -o 1000 -g 1000 /engines
# NVIDIA's entrypoint, which prepares CUDA, stays.
WORKDIR /app
# See scripts/__init__.py.
ENV ORT_DISABLE_TELEMETRY=1
COPY scripts/errors.py scripts/
COPY scripts/embedded/access.py scripts/embedded/gpu_memory.py scripts/embedded/
COPY scripts/container scripts/container
USER 1000:1000
