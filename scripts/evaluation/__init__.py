"""Compares what a server answers with labels, with references and with published tensors."""
