-- Spends of a rate limit, as core/gcra.py says, in whole microseconds of the server's clock.
-- KEYS  1 theoretical arrival time (string, microseconds)
-- ARGV  1 between two units, 2 the whole burst, 3 cost of what is spent (all in microseconds)
-- Returns {1 or 0, microseconds until as much as ever may be spent, microseconds until it would be allowed}
-- Cost  O(1)
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local burst, cost = tonumber(ARGV[2]), tonumber(ARGV[3])
-- Never further off than the burst: the clock of another server may be behind.
local at = math.min(math.max(tonumber(redis.call("GET", KEYS[1]) or "0"), now), now + burst)
local after = at + cost
local early = after - burst - now
if early > 0 then
  return { 0, at - now, early }
end
redis.call("SET", KEYS[1], string.format("%.0f", after), "PX", math.ceil((after - now) / 1000))
return { 1, after - now, 0 }
