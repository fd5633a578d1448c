"""Changes ONNX graphs: batch size, opset, pixel input, INT8; and makes synthetic ones."""
