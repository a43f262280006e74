-- Makes an instance known, with a lease from now on.
-- KEYS  1 instances (hash: name to «seen since lease claimer until», in ms)
-- ARGV  1 name, 2 lease in ms, 3 1 if one that is known stays as it is
-- Returns 1
-- Cost  O(1)
if ARGV[3] == "1" and redis.call("HEXISTS", KEYS[1], ARGV[1]) == 1 then
  return 1
end
local time = redis.call("TIME")
local now = string.format("%.0f", time[1] * 1000 + math.floor(time[2] / 1000))
redis.call("HSET", KEYS[1], ARGV[1], now .. " " .. now .. " " .. ARGV[2] .. " - 0")
return 1
