"""The command line: what people and scripts call. No arithmetic and no tensors; the engine does the work."""
