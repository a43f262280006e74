"""
The server API over gRPC. It must not know how operations are done.
"""
