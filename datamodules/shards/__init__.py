"""The shard format: files, entries, manifest; reading from disk and from afar."""
