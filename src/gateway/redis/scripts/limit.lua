-- Spends of rate limits, as core/gcra.py says, in whole microseconds of the server's clock; one after the other.
-- KEYS  theoretical arrival times (strings, microseconds); one may stand there several times
-- ARGV  for each key: the whole burst, then the cost of what is spent (in microseconds; a cost of 0 asks)
-- Returns for each key: 1 or 0, microseconds until as much as ever may be spent, microseconds until it would be allowed
-- Cost  O(keys)
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local told = {}
for i = 1, #KEYS do
  local burst, cost = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  -- Never further off than the burst: the clock of another server may be behind.
  local at = math.min(math.max(tonumber(redis.call("GET", KEYS[i]) or "0"), now), now + burst)
  local after = at + cost
  local early = after - burst - now
  if early > 0 then
    told[3 * i - 2], told[3 * i - 1], told[3 * i] = 0, at - now, early
  else
    if cost > 0 then
      redis.call("SET", KEYS[i], string.format("%.0f", after), "PX", math.ceil((after - now) / 1000))
    end
    told[3 * i - 2], told[3 * i - 1], told[3 * i] = 1, after - now, 0
  end
end
return told
