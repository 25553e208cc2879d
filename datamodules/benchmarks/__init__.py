"""Benchmarks as their authors released them: archives, file formats, and the protocol of each data set."""
