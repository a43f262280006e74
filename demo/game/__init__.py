"""
The demo's game: Connect Four tables behind gRPC, in memory.
"""
