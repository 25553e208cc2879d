"""The field's recipes on a small scale, on the base and the halls of the paper in miniature."""
