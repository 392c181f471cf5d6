"""From policy.onnx to C99 that a flight controller compiles."""
