"""`scripts.demo` with a model that is built in less time."""

import sys

from scripts import demo

if __name__ == "__main__":
    demo.MODEL = "mobilenetv2"
    sys.exit(demo.main())
