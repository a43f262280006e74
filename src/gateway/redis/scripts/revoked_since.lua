-- Reads what was revoked since a number.
-- KEYS  1 entries, 2 order, 3 head; see revoke.lua
-- ARGV  1 number, 2 most
-- Returns {name or empty, top, number up to which was read, entry, «issued before SPACE until», ...}
-- Cost  O(log N + entries returned)
local head = redis.call("HMGET", KEYS[3], "name", "top")
local top = tonumber(head[2] or "0")
local found = redis.call("ZRANGEBYSCORE", KEYS[2], "(" .. ARGV[1], "+inf", "WITHSCORES", "LIMIT", 0, ARGV[2])
local reply = { head[1] or "", top, top }
local entries = {}
for i = 1, #found, 2 do
  entries[#entries + 1] = found[i]
end
if #entries > 0 then
  if #entries == tonumber(ARGV[2]) then
    reply[3] = tonumber(found[#found])
  end
  local values = redis.call("HMGET", KEYS[1], unpack(entries))
  for i = 1, #entries do
    if values[i] then
      reply[#reply + 1] = entries[i]
      reply[#reply + 1] = values[i]
    end
  end
end
return reply
