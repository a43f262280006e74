-- Ends a session, open or suspended, if it is still this client's.
-- KEYS  1 sessions, 2 suspended, 3 held, 4 devices, 5 events, 6 overflow: see session_open
-- ARGV  1 id, 2 client, 3 when, 4 event's id or empty, 5 its data, 6 most events
-- Returns 1 to exactly one caller, else 0
-- Cost  O(log(sessions of the partition) + sessions of the device)
local PARTS = "^.\t([^\t]*)\t([^\t]*)\t%d*\t%d*\t[^\t]*\t(%d*)\t([^\n]*)\n[^\n]*\n[^\n]*\n(%d+)\t"
local instance, client, started, device, resumes = string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", PARTS)
if not client or client ~= ARGV[2] then
  return 0
end
redis.call("HDEL", KEYS[1], ARGV[1])
redis.call("ZREM", KEYS[2], ARGV[1])
redis.call("ZREM", KEYS[3], instance .. "\t" .. ARGV[1])
if device ~= "" then
  local left = {}
  for id in string.gmatch(redis.call("HGET", KEYS[4], device) or "", "%S+") do
    if id ~= ARGV[1] then
      table.insert(left, id)
    end
  end
  if #left > 0 then
    redis.call("HSET", KEYS[4], device, table.concat(left, " "))
  else
    redis.call("HDEL", KEYS[4], device)
  end
end
if ARGV[4] ~= "" then
  if redis.call("XLEN", KEYS[5]) >= tonumber(ARGV[6]) then
    redis.call("HINCRBY", KEYS[6], "events", 1)
  else
    local time = redis.call("TIME")
    local now, at = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])
    local ended = math.min(at > 0 and at or now + at, now)
    local when = string.format("%.0f", ended)
    redis.call("XADD", KEYS[5], "*", "i", ARGV[4], "s", ARGV[1], "t", when, "b", started, "r", resumes, "d", ARGV[5])
  end
end
return 1
