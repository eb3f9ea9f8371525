"""Networks as ONNX: quantize-dequantize pairs around float operations that hold whole numbers exactly."""
