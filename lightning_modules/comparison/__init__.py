"""Comparison of evaluated runs, image by image: differences with intervals, settings, visualisations."""
