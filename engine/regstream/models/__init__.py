"""One real block inside an otherwise empty transformers model, and how an architecture is described."""
