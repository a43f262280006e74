-- Revokes tokens and subjects, and tells every instance what is new about it.
-- KEYS  1 entries (hash: «t:ID» or «s:SUBJECT» to «issued before SPACE until»), 2 order (zset: entry by its number),
--       3 ends (zset: entry by until), 4 head (hash: name, top), 5 topic
-- ARGV  1 name for a new set, 2... entry, issued before, until; times in epoch seconds
-- Returns {name, top}
-- Cost  O(log N) for each entry; with it up to 200 go that have ended. All is gone with the last.
local time = redis.call("TIME")
local now = time[1] + time[2] / 1000000
local ended = redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", now, "LIMIT", 0, 200)
if #ended > 0 then
  redis.call("HDEL", KEYS[1], unpack(ended))
  redis.call("ZREM", KEYS[2], unpack(ended))
  redis.call("ZREM", KEYS[3], unpack(ended))
end
local head = redis.call("HMGET", KEYS[4], "name", "top")
local name, before = head[1] or ARGV[1], tonumber(head[2] or "0")
local top, told = before, {}
for i = 2, #ARGV, 3 do
  local entry, issued, ends = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if tonumber(ends) > now then
    local known = redis.call("HGET", KEYS[1], entry)
    if known then
      local was_issued, was_ends = string.match(known, "^(%S+) (%S+)$")
      if tonumber(was_issued) > tonumber(issued) then
        issued = was_issued
      end
      if tonumber(was_ends) > tonumber(ends) then
        ends = was_ends
      end
    end
    local value = issued .. " " .. ends
    if value ~= known then
      top = top + 1
      redis.call("HSET", KEYS[1], entry, value)
      redis.call("ZADD", KEYS[2], top, entry)
      redis.call("ZADD", KEYS[3], ends, entry)
      told[#told + 1] = entry
      told[#told + 1] = issued
      told[#told + 1] = ends
    end
  end
end
if top > before then
  redis.call("HSET", KEYS[4], "name", name, "top", top)
  local last = math.ceil(redis.call("ZREVRANGE", KEYS[3], 0, 0, "WITHSCORES")[2])
  for i = 1, 4 do
    redis.call("EXPIREAT", KEYS[i], last)
  end
  redis.call("SPUBLISH", KEYS[5], cmsgpack.pack({ name, before, top, told }))
end
return { name, top }
