"""Weights that the project ships, and the programs that made them."""
