"""oneDNN through its C API: convolutions, pooling and matrix products on all cores, nothing compiled."""
