-- Writes notes of open sessions that are still these clients'.
-- KEYS  1 sessions: see session_open
-- ARGV  of each: id, client, note
-- Returns how many were written
-- Cost  O(given)
local written = 0
for i = 1, #ARGV, 3 do
  local record = redis.call("HGET", KEYS[1], ARGV[i]) or ""
  local rest, client = string.match(record, "^(o\t[^\t]*\t([^\t]*)\t[^\n]*\n[^\n]*\n[^\n]*\n[^\n]*\n)")
  if client and client == ARGV[i + 1] then
    redis.call("HSET", KEYS[1], ARGV[i], rest .. ARGV[i + 2])
    written = written + 1
  end
end
return written
