"""Lists the classifiers in a server's model repository."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ._results import Model
from ._server import Server

GRAPH_SUFFIX = "_onnx"  # the model NAME_onnx is the graph of the classifier NAME


async def models(server: Server) -> list[Model]:
    """List a server's classifiers in alphabetical order, without the models they consist of.

    A classifier that is not ready is listed if its graph, NAME_onnx, is.

    Raises:
        ClientError: or a subclass.
    """
    # Ensembles share steps; this fetches each configuration once.
    configs = {name: await server.config(name) for name in await server.ready_models()}
    ready = [_model(name, configs) for name in configs if _steps(configs[name])]
    # The server does not list a model that is not ready, but its graph may be ready.
    graphs = (name for name in configs if name.endswith(GRAPH_SUFFIX))
    missing = {name.removesuffix(GRAPH_SUFFIX) for name in graphs} - set(configs)
    failed = [Model(name, ready=False, reason="not loaded") for name in missing]
    return sorted([*ready, *failed], key=lambda model: model.name)


def _model(name: str, configs: Mapping[str, Mapping[str, Any]]) -> Model:
    steps = _steps(configs[name])
    first, last = (configs[steps[end]["model_name"]] for end in (0, -1))
    recipe = _parameter(first, "recipe")
    return Model(
        name,
        ready=True,
        classes=_classes(last),
        recipe=json.loads(recipe) if recipe else None,
        crops=int(_parameter(first, "crops") or 1),
    )


def _steps(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    steps: Sequence[Mapping[str, Any]] = config.get("ensemble_scheduling", {}).get("step", [])
    return steps


def _parameter(config: Mapping[str, Any], name: str) -> str:
    """Return a parameter of a configuration, empty if it has none."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", ""))


def _classes(postprocess: Mapping[str, Any]) -> int | None:
    """Return the number of classes: the size of the scores that the last step takes."""
    needed = [tensor for tensor in postprocess.get("input", []) if not tensor.get("optional")]
    dims = [int(size) for tensor in needed for size in tensor["dims"]]
    return dims[-1] if dims else None
