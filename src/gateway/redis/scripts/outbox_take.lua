-- Reads the oldest events of a partition, unless another instance does so.
-- KEYS  1 events or owed (stream), 2 who takes (string, expires)
-- ARGV  1 who asks, 2 most, 3 ms for which the partition stays with it
-- Returns {{stream id, {"i", event's id, "s", session, "t", ms, "b", ms, "r", resumes, "d", data}}, ...}
-- Cost  O(returned)
if redis.call("XLEN", KEYS[1]) == 0 then
  return {}
end
local taker = redis.call("GET", KEYS[2])
if taker and taker ~= ARGV[1] then
  return {}
end
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[3])
return redis.call("XRANGE", KEYS[1], "-", "+", "COUNT", ARGV[2])
