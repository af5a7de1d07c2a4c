"""Benchmarks: each validates its answer, carries its baseline in the same run and gates ratios."""
