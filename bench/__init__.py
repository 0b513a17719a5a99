"""Benchmarks: throughput per core of this pipeline and its peers, in the same run, on the same data."""
