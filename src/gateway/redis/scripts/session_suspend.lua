-- Lets an open session be taken over for a while, if it is still this client's.
-- KEYS  1 sessions, 2 suspended, 3 held, 4 events, 5 overflow: see session_open
-- ARGV  1 id, 2 client, 3 window in ms, 4 cause, 5 when, 6 event's id or empty, 7 its data, 8 most events, 9 what its connections did
-- Returns 1, or 0 if nothing was done
-- Cost  O(log(sessions of the partition))
local PARTS = "^(.)\t([^\t]*)\t([^\t]*)\t%d*\t%d*\t[^\t]*\t(%d*)\t([^\n]*)\n([^\n]*)\n([^\n]*)\n(%d+)\t"
local state, instance, client, started, device, body, facts, resumes =
  string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", PARTS)
if state ~= "o" or client ~= ARGV[2] then
  return 0
end
local time = redis.call("TIME")
local now, at = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[5])
local lost = math.min(at > 0 and at or now + at, now)
local seen, till = string.format("%.0f", lost), string.format("%.0f", lost + tonumber(ARGV[3]))
local head = { "s", instance, client, seen, till, ARGV[4], started, device }
local lines = { table.concat(head, "\t"), body, facts, resumes .. "\t" .. ARGV[9], "" }
redis.call("HSET", KEYS[1], ARGV[1], table.concat(lines, "\n"))
redis.call("ZADD", KEYS[2], till, ARGV[1])
redis.call("ZREM", KEYS[3], instance .. "\t" .. ARGV[1])
if ARGV[6] ~= "" then
  if redis.call("XLEN", KEYS[4]) >= tonumber(ARGV[8]) then
    redis.call("HINCRBY", KEYS[5], "events", 1)
  else
    local told = { "i", ARGV[6], "s", ARGV[1], "t", seen, "b", started, "r", resumes, "d", ARGV[7] }
    redis.call("XADD", KEYS[4], "*", unpack(told))
  end
end
return 1
