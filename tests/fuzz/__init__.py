"""
Fuzzing: what reads bytes of strangers, as functions of bytes that must not fail, and a corpus that is kept.
"""
