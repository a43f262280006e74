"""
Who a caller is: tokens verified, keys kept fresh, revocations honoured.

This room must not know routes, sockets of clients, or backends.
"""
