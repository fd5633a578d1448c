"""The ImageNet classifiers of the ONNX Model Zoo that can be built by name."""

from dataclasses import dataclass

from scripts.repository.errors import BuildError
from scripts.repository.steps.preprocess.recipe import Recipe, square

# The zoo's pages: every ResNet resizes to 256 and crops 224, MobileNetV2 resizes to 224.
RESNET = square(256, 224)
MOBILENET = square(224, 224)


@dataclass(frozen=True)
class ZooModel:
    """A classifier of the zoo: input 224 x 224 RGB, output logits of ILSVRC2012's 1,000 classes.

    `size` is in bytes, `archive_sha256` is that of the zoo's .tar.gz with the model and test data,
    `top1` and `top5` are the zoo's published accuracies in percent, and `output` is the name of the
    logits tensor.
    """

    name: str
    zoo_file: str
    size: int
    sha256: str
    archive_sha256: str
    top1: float
    top5: float
    output: str
    recipe: Recipe

    @property
    def family(self) -> str:
        """The zoo's folder: `resnet` or `mobilenet`."""
        return "mobilenet" if self.name.startswith("mobilenet") else "resnet"

    @property
    def archive(self) -> str:
        """The file name of the zoo's archive with test data."""
        return f"{self.zoo_file}.tar.gz"


CATALOG: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel(
            name="resnet18_v1",
            zoo_file="resnet18-v1-7",
            size=46_820_737,
            sha256="4e8f8653e7a2222b3904cc3fe8e304cd8b339ce1d05fd24688162f86fb6df52c",
            archive_sha256="2163225f89c858f120b5376758b752e57139601e967f6c6f614a3d77e9d66505",
            top1=69.93,
            top5=89.29,
            output="resnetv15_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet34_v1",
            zoo_file="resnet34-v1-7",
            size=87_302_588,
            sha256="883a41b2e30ddc2e422c108b091b5e70b92d37dc5c345a2c563dcae27971e2cc",
            archive_sha256="c95b29c28e4d2c6b9ee7969e668b35cff335ec11761e9722f3ebe67490c19f7b",
            top1=73.73,
            top5=91.40,
            output="resnetv16_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet50_v1",
            zoo_file="resnet50-v1-7",
            size=102_583_340,
            sha256="af16a04a6ec48ac494065d4439fe9dea590d337b9ca6dc328160ccf04a217b9c",
            archive_sha256="898a9183256e884ae06fb1c11869386eccd38393ab41d9339909e974519a9feb",
            top1=74.93,
            top5=92.38,
            output="resnetv17_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet101_v1",
            zoo_file="resnet101-v1-7",
            size=178_914_043,
            sha256="760702f6ec0138f71ebac66f4e95d1c72dc9267a8544f4d4667a53075fd0497c",
            archive_sha256="27f51a51a9de6c1b10455cb09164f384746288c4b9e7bbb4af49ab206abd6703",
            top1=76.48,
            top5=93.20,
            output="resnetv18_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet152_v1",
            zoo_file="resnet152-v1-7",
            size=241_816_206,
            sha256="b0ec92437bf8c9d0739bf9bafdea9638e13f9e3c1e2fb766ad546cc182fd3f6d",
            archive_sha256="470ccde11c3ee2b490c214e48459c03e5b4118e8143f83dd795263efcf794cf3",
            top1=77.11,
            top5=93.61,
            output="resnetv19_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet18_v2",
            zoo_file="resnet18-v2-7",
            size=46_806_737,
            sha256="3b4d048057854022232aa20bf68262e31718ab7119a17f920b8a2dc1433f824b",
            archive_sha256="a64c111fac5d4e8bebf9246507ec7a92ea1c1596de09fca73bb7f94e9750e316",
            top1=69.70,
            top5=89.49,
            output="resnetv22_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet34_v2",
            zoo_file="resnet34-v2-7",
            size=87_288_587,
            sha256="3d3815e25f4b1ea967e2a526a3b27ef2a03af1725bdc199a63a271c26862d914",
            archive_sha256="b04865581abb9a51af87cfc170ac26e928eeade336e16abbe984c410441453cc",
            top1=73.36,
            top5=91.43,
            output="resnetv23_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet50_v2",
            zoo_file="resnet50-v2-7",
            size=102_442_452,
            sha256="79102261eb6e5fd7af5d27f41316293e388c5cb691e5d25bfb035c4f64fefe31",
            archive_sha256="d6a8b7ec924dae64e19c0850e7aa9c633095f7c4422393f5cc478c4982e97667",
            top1=75.81,
            top5=92.82,
            output="resnetv24_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet101_v2",
            zoo_file="resnet101-v2-7",
            size=178_682_301,
            sha256="3a0a819ea0953fb4700b0d98e43540aeee253e5b4c503c552b0c7979fc67767d",
            archive_sha256="566663c700f5cc1e8eb0043c00923d5422abaca4fae21568973ef9c446084f6e",
            top1=77.42,
            top5=93.61,
            output="resnetv25_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="resnet152_v2",
            zoo_file="resnet152-v2-7",
            size=241_503_848,
            sha256="40fb3f6dd313ba786a2c8077a0ef7d7b4afeda5d037365400d3a7fbc2b1bee64",
            archive_sha256="78b507483050a427870a264c398d121f44b92d69c8ca0c53217eb5137b6b51e3",
            top1=78.20,
            top5=94.21,
            output="resnetv27_dense0_fwd",
            recipe=RESNET,
        ),
        ZooModel(
            name="mobilenetv2",
            zoo_file="mobilenetv2-7",
            size=14_246_826,
            sha256="c1c513582d56afceff8516c73804e484c81c6a830712ab6d682253f4a3cd042f",
            archive_sha256="b463ad62dae99f13afd88549ca7d43e9bda6876614f3592ebb41177e1db0fcc5",
            top1=70.94,
            top5=89.99,
            output="mobilenetv20_output_flatten0_reshape0",
            recipe=MOBILENET,
        ),
    )
}


def select(names: list[str]) -> list[ZooModel]:
    """Select models by name, in the order of the catalogue; `all` selects every model.

    Raises:
        BuildError: a name is not in the catalogue.
    """
    unknown = [name for name in names if name not in CATALOG and name != "all"]
    if unknown:
        raise BuildError(
            f"unknown model {', '.join(unknown)}; choose from: all, {', '.join(CATALOG)}"
        )
    return [model for model in CATALOG.values() if model.name in names or "all" in names]
