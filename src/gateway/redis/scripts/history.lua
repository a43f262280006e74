-- Read a stream, or what comes next of it; one that is not there is made, so that its position can be recovered from.
-- KEYS  1 meta, 2 stream (as in publish)
-- ARGV  1 chain, 2 name for a new epoch, 3 id of the first entry that may be read (or - or +), 4 most entries (0: the
--       position only), 5 1 if in reverse, 6 how long meta is kept at least (s), 7 most bytes of payloads, but one entry,
--       8 epoch and 9 offset that were told: a stream of it that has not come so far went back
-- Returns {epoch, offset of the top, {{OFFSET-0, {"d", blob}}, ...}, 1 if more may follow}; the error STALE as publish
-- Cost  O(entries returned)
local meta = redis.call("HMGET", KEYS[1], "e", "o", "c")
local epoch, top = meta[1], tonumber(meta[2] or "0")
if epoch and meta[3] ~= ARGV[1] then
  if meta[3] > ARGV[1] then
    return redis.error_reply("STALE the chain is " .. meta[3])
  end
  epoch = false
end
if epoch == ARGV[8] and top < tonumber(ARGV[9]) then
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
local most, room, entries, from = tonumber(ARGV[4]), tonumber(ARGV[7]), {}, ARGV[3]
-- A few at a time: how many fit is known only when they are read.
while #entries < most do
  local wanted, few = math.min(most - #entries, 16), nil
  if ARGV[5] == "1" then
    few = redis.call("XREVRANGE", KEYS[2], from, "-", "COUNT", wanted)
  else
    few = redis.call("XRANGE", KEYS[2], from, "+", "COUNT", wanted)
  end
  for _, entry in ipairs(few) do
    room = room - #entry[2][2]
    if room < 0 and #entries > 0 then
      return {epoch, top, entries, 1}
    end
    entries[#entries + 1] = entry
  end
  if #few < wanted then
    return {epoch, top, entries, 0}
  end
  from = "(" .. few[#few][1]
end
return {epoch, top, entries, 1}
