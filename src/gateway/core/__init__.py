"""
The rules, pure: values in, values out.

This room must not know sockets, clocks, files or coroutines. Whatever here depends on
time is given ``now`` as a number.
"""
