"""
What ``protos/`` becomes when the package is built: generated modules, and nothing else.
"""
