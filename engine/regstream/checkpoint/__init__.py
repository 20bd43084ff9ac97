"""Reading: safetensors checkpoints and the adapters on them, by parameter name."""
