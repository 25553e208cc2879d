"""From raw frames to shards: planning, encoding, continuing, merging, checking, previewing."""
