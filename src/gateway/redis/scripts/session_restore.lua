-- Writes sessions that an instance holds, where the store lost them or thinks them lost.
-- KEYS  1 sessions, 2 suspended, 3 held, 4 devices, 5 events, 6 overflow: see session_open
-- ARGV  1 most events, then of each: id, instance, client, device's digest, start in ms, body, «resumes TAB past», note,
--       event's id, its data
-- Returns of each 1, or 0 if an open connection of somebody else has it
-- Cost  O(given * log(sessions of the partition))
local time = redis.call("TIME")
local now = string.format("%.0f", time[1] * 1000 + math.floor(time[2] / 1000))
local done = {}
for i = 2, #ARGV, 10 do
  local id, instance, client, device = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local record = redis.call("HGET", KEYS[1], id)
  local state, holder, other, started, body, facts, tally = string.match(
    record or "",
    "^(.)\t([^\t]*)\t([^\t]*)\t%d*\t%d*\t[^\t]*\t(%d*)\t[^\n]*\n([^\n]*)\n([^\n]*)\n([^\n]*)\n"
  )
  if state == "o" and other ~= client then
    table.insert(done, 0)
  else
    table.insert(done, 1)
    if state ~= "o" or holder ~= instance then
      local head = { "o", instance, client, now, "", "", started or ARGV[i + 4], device }
      local lines =
        { table.concat(head, "\t"), body or ARGV[i + 5], facts or "", tally or ARGV[i + 6], ARGV[i + 7] }
      redis.call("HSET", KEYS[1], id, table.concat(lines, "\n"))
      redis.call("ZREM", KEYS[2], id)
      if holder then
        redis.call("ZREM", KEYS[3], holder .. "\t" .. id)
      end
      redis.call("ZADD", KEYS[3], 0, instance .. "\t" .. id)
      if not record then
        if device ~= "" then
          local ids = redis.call("HGET", KEYS[4], device)
          redis.call("HSET", KEYS[4], device, ids and id .. " " .. ids or id)
        end
        if ARGV[i + 8] ~= "" then
          if redis.call("XLEN", KEYS[5]) >= tonumber(ARGV[1]) then
            redis.call("HINCRBY", KEYS[6], "events", 1)
          else
            local began, resumes = ARGV[i + 4], string.match(ARGV[i + 6], "^%d+")
            local told = { "i", ARGV[i + 8], "s", id, "t", began, "b", began, "r", resumes, "d", ARGV[i + 9] }
            redis.call("XADD", KEYS[5], "*", unpack(told))
          end
        end
      end
    end
  end
end
return done
