"""Passes over nnabla graphs: trace, quantize, bake."""
