"""Networks as TensorFlow Lite files with INT4 and INT8 weights, for TFLM and CMSIS-NN."""
