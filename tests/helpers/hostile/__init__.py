"""Broken and hostile files of every format that the project reads, and a judge who says whether they were met well.

``python -m benchmarks.attack`` makes thousands of them; the tests make a few, always the same ones.
"""
