"""Static graphs, ONNX, int8, and the proof that they score as the network does."""
