"""Protocols and metrics of benchmarks beside those of a task: alignments, edges, planes, and published figures."""
