"""Networks as C99 for microcontrollers: packed weights, static buffers, whole numbers only."""
