"""An architecture that the manifest's table describes, validated against the model."""
