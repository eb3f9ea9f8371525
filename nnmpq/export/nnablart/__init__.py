"""Networks for Sony's C runtime: one binary file (NNB), or C source that calls the runtime's functions (CSRC)."""
