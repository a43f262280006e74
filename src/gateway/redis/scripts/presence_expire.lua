-- Ends entries of a channel that were held long enough; told of users that have none left there.
-- KEYS  1 who, 2 users, 3 topic: see presence_enter
-- ARGV  1 now in ms, by the clock that said until when they are held, 2... sessions
-- Returns for each: the info of one that was ended, "" if there is nothing to end, or the ms until which it is held still
-- Cost  O(sessions)
local ended = {}
for i = 2, #ARGV do
  local entry = redis.call("HGET", KEYS[1], ARGV[i]) or ""
  local till, told, info = string.match(entry, "^h (%d+) (%S) (.*)$")
  if not till then
    ended[i - 1] = ""
  elseif tonumber(till) > tonumber(ARGV[1]) then
    ended[i - 1] = tonumber(till)
  else
    ended[i - 1] = info
    redis.call("HDEL", KEYS[1], ARGV[i])
    local _, user = cmsgpack.unpack_one(info, 1)
    if redis.call("HINCRBY", KEYS[2], user, -1) <= 0 then
      redis.call("HDEL", KEYS[2], user)
      if told == "a" then
        redis.call("SPUBLISH", KEYS[3], "l" .. info)
      end
    end
  end
end
return ended
