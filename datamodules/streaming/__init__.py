"""From shards to batches: order, loader processes, training and validation loaders."""
