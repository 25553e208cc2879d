"""Scores on test data sets: exact sums over any number of ranks, tables, visualisations, files."""
