"""Lists the classifiers in a server's model repository."""

import json
from collections.abc import Mapping
from typing import Any

from ._results import Model
from ._server import Server

GRAPH_SUFFIX = "_onnx"  # the model NAME_onnx is the graph of the classifier NAME


async def models(server: Server) -> list[Model]:
    """List a server's classifiers in alphabetical order, without the models they consist of.

    Raises:
        ClientError: or a subclass.
    """
    index = {model["name"]: model for model in await server.index()}
    ready = [name for name, entry in index.items() if entry.get("state") == "READY"]
    # Ensembles share steps; this fetches each configuration once.
    configs = {name: await server.config(name) for name in ready}
    listed = [_model(name, index, configs) for name in sorted(index)]
    return [model for model in listed if model]


def _model(
    name: str,
    index: Mapping[str, Mapping[str, str]],
    configs: Mapping[str, Mapping[str, Any]],
) -> Model | None:
    if name not in configs:
        # The server returns the configuration of ready models only.
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
    """Return the number of classes: the size of the scores that the last step takes."""
    needed = [tensor for tensor in postprocess.get("input", []) if not tensor.get("optional")]
    dims = [int(size) for tensor in needed for size in tensor["dims"]]
    return dims[-1] if dims else None
