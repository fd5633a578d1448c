"""The options of `python -m scripts.evaluate`."""

import argparse
import os
from pathlib import Path

from client import Tls
from scripts import arguments, cli
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.served import Server
from scripts.repository.tuning import MAX_TOP_K

EXAMPLES = """\
  python -m scripts.evaluate --data imagenet/val --models resnet50_v1
  python -m scripts.evaluate --data ILSVRC2012_img_val.tar --models resnet50_v1 mobilenetv2 \\
      --ground-truth ILSVRC2012_validation_ground_truth.txt --synsets synsets.txt
  python -m scripts.evaluate --data flowers --models flowers --fail-under 90
  python -m scripts.evaluate --data photos --models resnet50_v1 --reference    # needs no labels
  python -m scripts.evaluate --data photos --models birds --reference birds.onnx
  python -m scripts.evaluate --data photos --models birds_fp32 birds_int8      # how they differ
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = cli.parser(
        "scripts.evaluate",
        "Send labelled images through served classifiers and report top-1 and top-5 accuracy with "
        "confidence intervals, calibration error and the most confused classes. Several models "
        "are compared with the first one; with --reference each model is compared with its ONNX "
        "file, run with onnxruntime and exact decoding. An evaluation that was stopped "
        "continues when the same command is run again.",
        examples=EXAMPLES,
    )
    _add_data(parser.add_argument_group("images"))
    _add_server(parser.add_argument_group("server"))
    _add_reference(parser.add_argument_group("reference"))
    _add_results(parser.add_argument_group("results"))
    return parser


def server_of(options: argparse.Namespace) -> Server:
    """Return the server that the options describe, after checking those that belong together.

    Raises:
        EvaluationError: an option is invalid, or lacks another one.
    """
    _check(options)
    headers = [line.partition(":") for line in options.header]
    if wrong := [name for name, colon, _ in headers if not colon]:
        raise EvaluationError(
            f"invalid header {wrong[0]!r}: use a form such as 'Authorization: Bearer TOKEN'"
        )
    certificates = (options.ca, options.cert, options.key)
    try:
        tls = Tls(*certificates) if any(certificates) else None
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    return Server(
        tuple(options.url.split(",")),
        {name.strip(): value.strip() for name, _, value in headers},
        tls,
        options.retries,
    )


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        type=arguments.path,
        required=True,
        metavar="PATH",
        help="images with labels: a folder for each class, one of ImageNet's layouts, a tar or "
        "parquet files; labels are not needed with --reference or several models",
    )
    group.add_argument(
        "--ground-truth", type=arguments.path, metavar="FILE", help="file with the labels"
    )
    group.add_argument(
        "--synsets",
        type=arguments.path,
        metavar="FILE",
        help="file that says which class each number of --ground-truth is",
    )
    group.add_argument(
        "--labels",
        type=arguments.path,
        metavar="FILE",
        help=f"the classes in output order (default: the server's, up to {MAX_TOP_K:,} classes)",
    )
    group.add_argument(
        "--limit", type=arguments.count, metavar="N", help="only N images, evenly spaced"
    )


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME",
        help="models; the first is the baseline that the others are compared with",
    )
    group.add_argument(
        "--url",
        default=os.environ.get("TRITON_URL", "localhost:8001"),
        help="host:port, or a URL with the scheme grpc, grpcs, http or https; separate several "
        "with commas (default: %(default)s)",
    )
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="header of every request; can be repeated",
    )
    for name, text in (
        ("--ca", "CA bundle used to verify the server (PEM)"),
        ("--cert", "client certificate (PEM)"),
        ("--key", "private key of the client certificate (PEM)"),
    ):
        group.add_argument(name, type=arguments.path, metavar="FILE", help=text)
    group.add_argument(
        "--concurrency",
        type=arguments.count,
        default=8,
        metavar="N",
        help="requests in flight (default: %(default)s)",
    )
    group.add_argument(
        "--retries",
        type=arguments.count,
        default=Server.retries,
        metavar="N",
        help="retries of a request that no server accepts, before the evaluation stops "
        "(default: %(default)s)",
    )


def _add_reference(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--reference",
        nargs="?",
        const=True,
        type=arguments.path,
        metavar="ONNX",
        help="compare with the file that the model was built from, in FP32 with exact decoding; "
        "the zoo's files are found without ONNX",
    )
    group.add_argument(
        "--model-repository",
        type=arguments.path,
        default=cli.DEFAULT_REPOSITORY,
        metavar="DIR",
        help="the repository that is served, which tells how the model was built "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--weights",
        type=arguments.filled,
        default="zoo",
        metavar="DIR",
        help="folder with the zoo's files (default: download them)",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        type=arguments.path,
        default=Path("build/evaluation"),
        metavar="DIR",
        help="folder for report.json, report.md, and for each model NAME.jsonl and "
        "NAME-confusion.png (default: %(default)s)",
    )
    group.add_argument(
        "--restart", action="store_true", help="begin anew instead of continuing in the folder"
    )
    group.add_argument(
        "--fail-under",
        type=arguments.percent,
        metavar="PERCENT",
        help="exit with 1 if the top-1 accuracy of a model is below this",
    )
    group.add_argument(
        "--fail-under-agreement",
        type=arguments.percent,
        metavar="PERCENT",
        help="exit with 1 if the reference has the same top-1 for a lower share of the images",
    )


def _check(options: argparse.Namespace) -> None:
    if options.fail_under_agreement is not None and not options.reference:
        raise EvaluationError("--fail-under-agreement needs --reference")
    if bool(options.cert) != bool(options.key):
        raise EvaluationError("a client certificate needs its private key: give --cert and --key")
