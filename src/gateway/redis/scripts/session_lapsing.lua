-- Lists suspended sessions whose time has passed, longest first; they stay.
-- KEYS  1 sessions, 2 suspended: see session_open
-- ARGV  1 most
-- Returns {ms of this server's clock, id, record, ...}
-- Cost  O(log(suspended) + returned)
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = { now }
for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now, "LIMIT", 0, ARGV[1])) do
  local record = redis.call("HGET", KEYS[1], id)
  if record then
    table.insert(found, id)
    table.insert(found, record)
  else
    redis.call("ZREM", KEYS[2], id)
  end
end
return found
