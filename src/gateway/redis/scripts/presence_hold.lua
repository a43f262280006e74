-- Holds sessions in a channel: each if it is still its connection, or still belongs to an instance that died.
-- KEYS  1 who: see presence_enter
-- ARGV  1 ms until which they are held (presence_until), 2 «c» or «i», then 3... a session and its client, or its instance
-- Returns how many are held now that were not
-- Cost  O(sessions)
local held = 0
for i = 3, #ARGV, 2 do
  local entry = redis.call("HGET", KEYS[1], ARGV[i]) or ""
  local state, owner, told, info = string.match(entry, "^(%a) (%S+) (%S) (.*)$")
  local so = false
  if ARGV[2] == "i" then
    so = state == "o" and owner == ARGV[i + 1]
  elseif state then
    local _, client = cmsgpack.unpack_one(info, (cmsgpack.unpack_one(info, 1)))
    so = client == ARGV[i + 1]
  end
  if so then
    redis.call("HSET", KEYS[1], ARGV[i], "h " .. ARGV[1] .. " " .. told .. " " .. info)
    held = held + (state == "o" and 1 or 0)
  end
end
return held
