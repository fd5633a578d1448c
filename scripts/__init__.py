"""Commands that make, run and measure a Triton server for image classifiers."""
