"""Static graphs, ONNX, int8, and the check that they score as the network does."""
