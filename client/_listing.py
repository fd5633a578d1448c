"""Which of the models in a server's repository are classifiers, and what they are like."""

import json
from collections.abc import Mapping
from typing import Any

from client._results import Model
from client._server import Server

GRAPH_SUFFIX = "_onnx"  # a classifier's graph by itself, beside the classifier


async def models(server: Server) -> list[Model]:
    """List a server's classifiers in alphabetical order, without the parts they are made of.

    Raises:
        ClientError: one of its kinds.
    """
    index = {model["name"]: model for model in await server.index()}
    ready = [name for name, entry in index.items() if entry.get("state") == "READY"]
    # Once each: ensembles share their steps, which are ready when they are.
    configs = {name: await server.config(name) for name in ready}
    listed = [_model(name, index, configs) for name in sorted(index)]
    return [model for model in listed if model]


def _model(
    name: str,
    index: Mapping[str, Mapping[str, str]],
    configs: Mapping[str, Mapping[str, Any]],
) -> Model | None:
    if name not in configs:
        # What it is would be in its configuration, which the server shows of ready models only.
        is_classifier = f"{name}{GRAPH_SUFFIX}" in index
        reason = index[name].get("reason") or "not loaded"
        return Model(name, ready=False, reason=reason) if is_classifier else None
    steps = configs[name].get("ensemble_scheduling", {}).get("step", [])
    if not steps:
        return None
    first, last = (configs[steps[end]["model_name"]] for end in (0, -1))
    return Model(name, ready=True, classes=_classes(last), recipe=_recipe(first))


def _recipe(preprocess: Mapping[str, Any]) -> Mapping[str, Any] | None:
    recipe = preprocess.get("parameters", {}).get("recipe")
    return json.loads(recipe["string_value"]) if recipe else None


def _classes(postprocess: Mapping[str, Any]) -> int | None:
    """The scores that the last step takes are one for each class."""
    needed = [tensor for tensor in postprocess.get("input", []) if not tensor.get("optional")]
    dims = [int(size) for tensor in needed for size in tensor["dims"]]
    return dims[-1] if dims else None
