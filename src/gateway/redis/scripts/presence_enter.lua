-- Enters a session into a channel, or says anew who it is; told if its user had none there.
-- KEYS  1 who (hash: session to entry), 2 users (hash: user to number of entries), 3 topic
-- ARGV  1 session, 2 instance, 3 «a» if comings and goings are told, else «-», 4 info (MessagePack: user, client, ...),
--       5 1 if it must not be new
-- Returns 1 if it was held, -1 if it would be new and must not, else 0
-- Cost  O(1)
-- An entry: «o INSTANCE TOLD INFO» if it belongs to an instance, «h MS TOLD INFO» if it is held until then.
local before = redis.call("HGET", KEYS[1], ARGV[1])
if not before and ARGV[5] == "1" then
  return -1
end
redis.call("HSET", KEYS[1], ARGV[1], "o " .. ARGV[2] .. " " .. ARGV[3] .. " " .. ARGV[4])
if before then
  return string.sub(before, 1, 1) == "h" and 1 or 0
end
local _, user = cmsgpack.unpack_one(ARGV[4], 1)
if redis.call("HINCRBY", KEYS[2], user, 1) == 1 and ARGV[3] == "a" then
  redis.call("SPUBLISH", KEYS[3], "j" .. ARGV[4])
end
return 0
