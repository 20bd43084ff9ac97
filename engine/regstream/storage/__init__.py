"""Files that survive a kill: durable writes, shards of the result, hidden states, the journal."""
