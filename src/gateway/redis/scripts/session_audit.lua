-- Compares what an instance holds with what stands here.
-- KEYS  1 sessions, 2 held: see session_open
-- ARGV  1 instance, then of each session that it holds: id, client
-- Returns {{missing id, ...}, {taken id, ...}, {strange id, its client, ...}}
-- Cost  O(given + sessions that the instance has here)
local missing, taken, strange, mine = {}, {}, {}, {}
local function owner(id)
  return string.match(redis.call("HGET", KEYS[1], id) or "", "^(.)\t[^\t]*\t([^\t]*)\t")
end
for i = 2, #ARGV, 2 do
  local state, client = owner(ARGV[i])
  mine[ARGV[i]] = true
  if not state then
    table.insert(missing, ARGV[i])
  elseif state ~= "o" or client ~= ARGV[i + 1] then
    table.insert(taken, ARGV[i])
  end
end
for _, member in ipairs(redis.call("ZRANGEBYLEX", KEYS[2], "[" .. ARGV[1] .. "\t", "(" .. ARGV[1] .. "\n")) do
  local id = string.sub(member, #ARGV[1] + 2)
  if not mine[id] then
    local _, client = owner(id)
    table.insert(strange, id)
    table.insert(strange, client or "")
  end
end
return { missing, taken, strange }
