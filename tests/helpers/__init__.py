"""What tests and benchmarks share: small models and data, interrupted runs, transcribed formulas, hostile files."""
