-- Opens a session, or goes on with one that the same device lost; with what is to be told of it, in one step.
-- KEYS  1 sessions (hash: id to record), 2 suspended (zset: id by ms), 3 held (zset: «instance TAB id»), 4 devices (hash),
--       5 events (stream), 6 owed (stream), 7 overflow (hash: how many did not fit)
-- ARGV  1 id, 2 instance, 3 client, 4 device's digest or empty, 5 body, 6 facts, 7 note, 8 when, 9 1 if earlier ones are looked at,
--       10 session to take over by force, 11 its client, 12 event's id, 13 its data, 14 and 15 the same if one goes on,
--       16 most events, 17 most sessions of a device, 18... open sessions that are known to be held
-- Returns {"new" or "goes on", id, record} or {"contested", id, record, ...}
-- Cost  O(the newest sessions of the device)
-- When something happened is in ms of this server's clock, or 0 and less: so long ago. Never later than now.
-- A record: state, instance, client, seen, until, cause, start, device between tabs; body, facts, «resumes TAB past» and note on
-- lines of their own. An entry of a stream: i its id, s session, t when, b when that began, r its resumes, d data.
local PARTS = "^(.)\t([^\t]*)\t([^\t]*)\t(%d*)\t(%d*)\t([^\t]*)\t(%d*)\t([^\n]*)\n([^\n]*)\n([^\n]*)\n(%d+)\t([^\n]*)\n(.*)$"
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local began = tonumber(ARGV[8])
began = math.min(began > 0 and began or now + began, now)
local device = ARGV[4]

local function tell(stream, name, id, session, at, started, resumes, data)
  if id == "" then
    return
  end
  if redis.call("XLEN", stream) >= tonumber(ARGV[16]) then
    redis.call("HINCRBY", KEYS[7], name, 1)
  else
    local when = string.format("%.0f", at)
    redis.call("XADD", stream, "*", "i", id, "s", session, "t", when, "b", started, "r", resumes, "d", data)
  end
end

local function record(started, body, facts, resumes, past)
  local head = { "o", ARGV[2], ARGV[3], string.format("%.0f", began), "", "", started, device }
  local lines = { table.concat(head, "\t"), body, facts, resumes .. "\t" .. past, ARGV[7] }
  return table.concat(lines, "\n")
end

local there = redis.call("HGET", KEYS[1], ARGV[1])
if there then
  return { "new", ARGV[1], there }
end
local beside = {}
for i = 18, #ARGV do
  beside[ARGV[i]] = true
end
local ids = device ~= "" and redis.call("HGET", KEYS[4], device) or ""
local rivals = { "contested" }
for id in string.gmatch(ARGV[9] == "1" and ids or "", "%S+") do
  local earlier = redis.call("HGET", KEYS[1], id)
  local state, instance, client, seen, till, cause, started, _, body, facts, resumes, past, note =
    string.match(earlier or "", PARTS)
  local goes_on = false
  if state == "s" then
    goes_on = tonumber(till) > began
  elseif state == "o" then
    goes_on = id == ARGV[10] and client == ARGV[11]
    if goes_on then
      redis.call("ZREM", KEYS[3], instance .. "\t" .. id)
      tell(KEYS[6], "owed", note ~= "" and client or "", id, now, started, resumes, note)
    elseif not beside[id] and instance ~= ARGV[2] then
      table.insert(rivals, id)
      table.insert(rivals, earlier)
    end
  end
  if goes_on then
    resumes = string.format("%.0f", tonumber(resumes) + 1)
    local mine = record(started, body, ARGV[6], resumes, past)
    redis.call("HSET", KEYS[1], id, mine)
    redis.call("ZREM", KEYS[2], id)
    redis.call("ZADD", KEYS[3], 0, ARGV[2] .. "\t" .. id)
    tell(KEYS[5], "events", ARGV[14], id, began, started, resumes, ARGV[15])
    return { "goes on", id, mine }
  end
end
if #rivals > 1 then
  return rivals
end
local start = string.format("%.0f", began)
local mine = record(start, ARGV[5], "", "0", "")
redis.call("HSET", KEYS[1], ARGV[1], mine)
redis.call("ZADD", KEYS[3], 0, ARGV[2] .. "\t" .. ARGV[1])
if device ~= "" then
  -- The newest first: it is the one that a device comes back to.
  local newest = string.sub(ids, 1, (tonumber(ARGV[17]) - 1) * (#ARGV[1] + 1) - 1)
  redis.call("HSET", KEYS[4], device, newest == "" and ARGV[1] or ARGV[1] .. " " .. newest)
end
tell(KEYS[5], "events", ARGV[12], ARGV[1], began, start, "0", ARGV[13])
return { "new", ARGV[1], mine }
