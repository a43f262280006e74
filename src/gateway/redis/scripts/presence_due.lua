-- Lists entries that were held long enough, for one caller: others see them again only after a while.
-- KEYS  1 held: see presence_until
-- ARGV  1 most, 2 ms for which they are the caller's
-- Returns {now in ms, what they stand at meanwhile, «channel TAB session», ...}
-- Cost  O(returned * log(all that are held))
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, ARGV[1])
local till = now + tonumber(ARGV[2])
local found = { now, till }
for _, member in ipairs(due) do
  redis.call("ZADD", KEYS[1], till, member)
  table.insert(found, member)
end
return found
