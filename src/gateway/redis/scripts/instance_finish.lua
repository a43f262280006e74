-- Forgets an instance: one that was claimed and is tidied is told so if it comes back, one that leaves is not.
-- KEYS  1 instances: see instance_announce, 2 ended: see instance_beat
-- ARGV  1 name, 2 its claimer, or "-" if it leaves, 3 ms for which the ended are remembered
-- Returns 1, or 0 if it was not so
-- Cost  O(log(ended))
local claimer = string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", "^%d+ %d+ %d+ (%S+) %d+$")
if claimer ~= ARGV[2] then
  return 0
end
redis.call("HDEL", KEYS[1], ARGV[1])
if claimer ~= "-" then
  local time = redis.call("TIME")
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call("ZADD", KEYS[2], now, ARGV[1])
  redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", now - tonumber(ARGV[3]))
end
return 1
