"""
HTTP/1.1 towards clients and operators: listeners, the channel, resources.

This room must not know backends or how a token is verified.
"""
