"""Prints the numbers and WordNet ids in meta.mat of an ILSVRC devkit as JSON.

`synsets.py` runs this file as a process of its own, since damaged files can crash scipy.
"""

import json
import sys

from scipy.io import loadmat


def main(file: str) -> None:
    """Print a list of pairs, such as `[1, "n02119789"]`."""
    synsets = loadmat(file, squeeze_me=True)["synsets"]
    numbers, names = synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist()
    pairs = zip(map(int, numbers), map(str, names), strict=True)
    json.dump(list(pairs), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
