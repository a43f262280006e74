"""
Bytes to commands, and replies and pushes to bytes: one module for each dialect.

This room must not know connections, channels' rules or sockets.
"""
