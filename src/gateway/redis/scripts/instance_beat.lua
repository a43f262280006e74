-- Renews a lease; one that lapsed and was claimed by nobody is good again.
-- KEYS  1 instances: see instance_announce, 2 ended (zset: name by ms)
-- ARGV  1 name, 2 lease in ms
-- Returns "ok", "unknown" or "claimed"
-- Cost  O(1)
if redis.call("ZSCORE", KEYS[2], ARGV[1]) then
  return "claimed"
end
local seen, since, lease, claimer =
  string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", "^(%d+) (%d+) (%d+) (%S+) %d+$")
if not seen then
  return "unknown"
end
if claimer ~= "-" then
  return "claimed"
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if 2 * (now - tonumber(seen)) > tonumber(lease) then
  since = string.format("%.0f", now) -- It was not watching all the time: others may have beaten and not been heard.
end
redis.call("HSET", KEYS[1], ARGV[1], string.format("%.0f", now) .. " " .. since .. " " .. ARGV[2] .. " - 0")
return "ok"
