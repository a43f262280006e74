-- Suspends sessions that a dead instance held; what their connections are owed goes into its stream.
-- KEYS  1 sessions, 2 suspended, 3 held, 4 owed, 5 overflow: see session_open
-- ARGV  1 instance, 2 last known alive in ms, 3 until in ms, 4 most sessions, 5 most that may be owed
-- Returns how many were dealt with; 0 when none is left
-- Cost  O(returned * log(sessions of the partition))
local PARTS =
  "^(.)\t([^\t]*)\t([^\t]*)\t%d*\t%d*\t[^\t]*\t(%d*)\t([^\n]*)\n([^\n]*)\n([^\n]*)\n((%d+)\t[^\n]*)\n(.*)$"
local members =
  redis.call("ZRANGEBYLEX", KEYS[3], "[" .. ARGV[1] .. "\t", "(" .. ARGV[1] .. "\n", "LIMIT", 0, ARGV[4])
for _, member in ipairs(members) do
  local id = string.sub(member, #ARGV[1] + 2)
  local state, instance, client, started, device, body, facts, tally, resumes, note =
    string.match(redis.call("HGET", KEYS[1], id) or "", PARTS)
  if state == "o" and instance == ARGV[1] then
    local head = { "s", instance, client, ARGV[2], ARGV[3], "instance_lost", started, device }
    redis.call("HSET", KEYS[1], id, table.concat({ table.concat(head, "\t"), body, facts, tally, "" }, "\n"))
    redis.call("ZADD", KEYS[2], ARGV[3], id)
    if note ~= "" then
      if redis.call("XLEN", KEYS[4]) >= tonumber(ARGV[5]) then
        redis.call("HINCRBY", KEYS[5], "owed", 1)
      else
        local told = { "i", client, "s", id, "t", ARGV[2], "b", started, "r", resumes, "d", note }
        redis.call("XADD", KEYS[4], "*", unpack(told))
      end
    end
  end
  redis.call("ZREM", KEYS[3], member)
end
return #members
