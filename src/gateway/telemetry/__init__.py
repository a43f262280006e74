"""
What operators see: metrics, logs, trace context. Every metric is declared in one file.

This room must not know who calls it.
"""
