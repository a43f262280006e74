-- Removes a session from a channel, if it is still its connection; told if it was its user's last there.
-- KEYS  1 who, 2 users, 3 topic: see presence_enter
-- ARGV  1 session, 2 client
-- Returns 1, or 0 if it was not so
-- Cost  O(1)
local told, info = string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", "^%a %S+ (%S) (.*)$")
if not told then
  return 0
end
local at, user = cmsgpack.unpack_one(info, 1)
local _, client = cmsgpack.unpack_one(info, at)
if client ~= ARGV[2] then
  return 0
end
redis.call("HDEL", KEYS[1], ARGV[1])
if redis.call("HINCRBY", KEYS[2], user, -1) <= 0 then
  redis.call("HDEL", KEYS[2], user)
  if told == "a" then
    redis.call("SPUBLISH", KEYS[3], "l" .. info)
  end
end
return 1
