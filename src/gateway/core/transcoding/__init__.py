"""
JSON over HTTP to protobuf messages and back: the rules of ``google.api.http`` and of ProtoJSON.

Everything is compiled from descriptors when the configuration is loaded, so that a request costs
plain calls. This room must not know gRPC, HTTP connections or files: it is handed descriptors,
bytes and plain values, and returns messages, bytes and refusals. Channels and WebSocket commands
use the same rooms as HTTP routes.

Sources: google/api/http.proto, https://protobuf.dev/programming-guides/json, google/rpc/code.proto.
"""
