"""
Benchmarks: the gateway beside its peers in one run, on one machine, as ratios.

``python -m bench`` measures, and writes what it found into ``bench/RESULTS.md``.
"""
