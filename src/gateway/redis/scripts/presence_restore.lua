-- Writes an entry that the store may have lost. Nobody is told: nobody came.
-- KEYS  1 who, 2 users: see presence_enter
-- ARGV  1 session, 2 «o» or «h», 3 instance, or ms until which it is held, 4 «a» or «-», 5 info
-- Returns 1, or 0 if it is another connection's by now
-- Cost  O(1)
local entry = redis.call("HGET", KEYS[1], ARGV[1])
local state, there = string.match(entry or "", "^(%a) %S+ %S (.*)$")
local at, user = cmsgpack.unpack_one(ARGV[5], 1)
if not state then
  redis.call("HINCRBY", KEYS[2], user, 1)
else
  local _, mine = cmsgpack.unpack_one(ARGV[5], at)
  local _, client = cmsgpack.unpack_one(there, (cmsgpack.unpack_one(there, 1)))
  -- One that is held gives way to one that is there.
  if client ~= mine and not (state == "h" and ARGV[2] == "o") then
    return 0
  end
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2] .. " " .. ARGV[3] .. " " .. ARGV[4] .. " " .. ARGV[5])
return 1
