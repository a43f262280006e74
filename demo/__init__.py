"""
The demo: backends as real processes, a configuration, and a program that starts them all.
"""
