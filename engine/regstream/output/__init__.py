"""What stands beside the shards: index, config, card, provenance; verifying and uploading a result."""
