"""What tests and benchmarks share: small models and data, interrupted runs, independent transcriptions, hostile files."""
