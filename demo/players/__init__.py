"""
A small backend: players' profiles over HTTP.

It believes ``X-User-Id``, as backends behind a gateway do, and says in its log what it was asked by whom.
"""
