"""Measures a GPU: the bare graph, the served graph and the ensemble, one turn after another."""
