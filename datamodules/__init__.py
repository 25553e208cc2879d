"""Data: preparing raw data sets into shards, and streaming shards into batches."""
