-- Ends suspended sessions whose time has passed, each with what is to be told of it.
-- KEYS  1 sessions, 2 suspended, 3 devices, 4 events, 5 overflow: see session_open
-- ARGV  1 most events, then of each: id, client, event's id or empty, its data
-- Returns of each 1 to exactly one caller, else 0
-- Cost  O(given * (log(suspended) + sessions of the device))
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = {}
for i = 2, #ARGV, 4 do
  local id = ARGV[i]
  local state, client, seen, till, started, device, resumes = string.match(
    redis.call("HGET", KEYS[1], id) or "",
    "^(.)\t[^\t]*\t([^\t]*)\t(%d*)\t(%d*)\t[^\t]*\t(%d*)\t([^\n]*)\n[^\n]*\n[^\n]*\n(%d+)\t"
  )
  local ends = state == "s" and client == ARGV[i + 1] and tonumber(till) <= now
  table.insert(ended, ends and 1 or 0)
  if ends then
    redis.call("HDEL", KEYS[1], id)
    redis.call("ZREM", KEYS[2], id)
    if device ~= "" then
      local left = {}
      for other in string.gmatch(redis.call("HGET", KEYS[3], device) or "", "%S+") do
        if other ~= id then
          table.insert(left, other)
        end
      end
      if #left > 0 then
        redis.call("HSET", KEYS[3], device, table.concat(left, " "))
      else
        redis.call("HDEL", KEYS[3], device)
      end
    end
    if ARGV[i + 2] ~= "" then
      if redis.call("XLEN", KEYS[4]) >= tonumber(ARGV[1]) then
        redis.call("HINCRBY", KEYS[5], "events", 1)
      else
        local told = { "i", ARGV[i + 2], "s", id, "t", seen, "b", started, "r", resumes, "d", ARGV[i + 3] }
        redis.call("XADD", KEYS[4], "*", unpack(told))
      end
    end
  end
end
return ended
