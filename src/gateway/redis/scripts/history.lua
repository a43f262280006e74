-- Read a stream, or what comes next of it; one that is not there is made, so that its position can be recovered from.
-- KEYS  1 meta, 2 stream (as in publish)
-- ARGV  1 chain, 2 name for a new epoch, 3 offset to begin behind (before, in reverse; -1: the end where reading begins),
--       4 most entries (0: the position only), 5 1 if in reverse, 6 how long meta is kept at least (s)
-- Returns {epoch, offset of the top, {{OFFSET-0, {"d", blob}}, ...}}; the error STALE as publish
-- Cost  O(entries returned)
local meta = redis.call("HMGET", KEYS[1], "e", "o", "c")
local epoch, top = meta[1], tonumber(meta[2] or "0")
if epoch and meta[3] ~= ARGV[1] then
  if tonumber(string.match(meta[3], "^%d+")) > tonumber(string.match(ARGV[1], "^%d+")) then
    return redis.error_reply("STALE the chain is " .. meta[3])
  end
  epoch = false
end
if not epoch then
  epoch, top = ARGV[2], 0
  redis.call("DEL", KEYS[2])
  redis.call("HSET", KEYS[1], "e", epoch, "o", 0, "c", ARGV[1])
end
if redis.call("TTL", KEYS[1]) < tonumber(ARGV[6]) then
  redis.call("EXPIRE", KEYS[1], ARGV[6])
end
local most, from = tonumber(ARGV[4]), tonumber(ARGV[3])
if most == 0 then
  return {epoch, top, {}}
end
if ARGV[5] == "1" then
  local start = from < 0 and "+" or ("(" .. from .. "-0")
  return {epoch, top, redis.call("XREVRANGE", KEYS[2], start, "-", "COUNT", most)}
end
local start = from < 0 and "-" or ("(" .. from .. "-0")
return {epoch, top, redis.call("XRANGE", KEYS[2], start, "+", "COUNT", most)}
