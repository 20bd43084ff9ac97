"""Do the inputs belong together? Configs, tensors, ties and adapters, compared before any work."""
