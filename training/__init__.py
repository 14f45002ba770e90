"""The independent judge: trains on shards and knows nothing of how they were made."""
