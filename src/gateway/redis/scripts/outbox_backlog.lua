-- Counts what waits in a partition.
-- KEYS  1 events or owed (stream), 2 overflow (hash)
-- ARGV  1 «events» or «owed»
-- Returns {how many wait, ms of the oldest or empty, how many did not fit}
-- Cost  O(1)
local oldest = redis.call("XRANGE", KEYS[1], "-", "+", "COUNT", 1)[1]
local at = oldest and oldest[2][6] or ""
return { redis.call("XLEN", KEYS[1]), at, tonumber(redis.call("HGET", KEYS[2], ARGV[1]) or "0") }
