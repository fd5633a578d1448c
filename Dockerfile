FROM python:3.12-slim AS builder
WORKDIR /app
COPY docker/build.lock /tmp/
# A fresh named volume takes the owner of the directory it is mounted over.
RUN pip install --no-cache-dir --require-hashes -r /tmp/build.lock \
    && install -d -o 1000 -g 1000 /cache /models
COPY scripts scripts
ENV PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/cache
USER 1000:1000
ENTRYPOINT ["python", "-m", "scripts.build_repository"]

FROM nvcr.io/nvidia/tritonserver:26.07-py3 AS server
COPY docker/steps.lock /tmp/
# Python backend models run on the image's own Python, which Ubuntu guards against pip.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 \
    python3 -m pip install --no-cache-dir --require-hashes -r /tmp/steps.lock
USER 1000:1000
