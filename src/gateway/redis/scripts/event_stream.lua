-- Appends events to a stream that others read.
-- KEYS  1 stream
-- ARGV  1 about how many entries it keeps, then of each: id, kind, session, event
-- Returns how many were appended
-- Cost  O(given)
for i = 2, #ARGV, 4 do
  local entry = { "id", ARGV[i], "kind", ARGV[i + 1], "session", ARGV[i + 2], "event", ARGV[i + 3] }
  redis.call("XADD", KEYS[1], "MAXLEN", "~", ARGV[1], "*", unpack(entry))
end
return (#ARGV - 1) / 4
