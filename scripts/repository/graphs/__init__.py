"""Operations on ONNX graphs: prepare, pixel input, INT8, speed; and synthetic graphs."""
