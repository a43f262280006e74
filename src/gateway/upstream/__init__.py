"""
The way to backends: connections, pools, choice of target, retries, pass-through proxying.

This room must not know who listens for clients, nor how a token is verified.
"""
