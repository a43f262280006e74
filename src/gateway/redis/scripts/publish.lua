-- Publish into a channel: idempotency, version, offset, append and message in one step.
-- KEYS  1 meta (hash: e epoch, o offset, c chain, v version, w version epoch), 2 stream (entries OFFSET-0), 3 topic,
--       4 idempotency key (string: OFFSET:EPOCH:CHAIN), looked at if ARGV 8 is not 0
-- ARGV  1 blob, 2 publications kept (0: no history), 3 how long the stream is kept (ms), 4 how long meta is kept (s),
--       5 chain, 6 name for a new epoch, 7 version (0: none), 8 how long the idempotency key is kept (ms), 9 version epoch
-- Returns {offset, epoch, "" or what suppressed it}; the error STALE if the caller's chain is older than the stream's
-- Cost  O(1)
local size, version, remembered = tonumber(ARGV[2]), ARGV[7], tonumber(ARGV[8])
if remembered > 0 then
  local seen = redis.call("GET", KEYS[4])
  if seen then
    local offset, epoch, chain = string.match(seen, "^(%d+):([^:]*):(.*)$")
    -- Of an older chain: what it stands for may be lost.
    if chain == ARGV[5] then
      return {tonumber(offset), epoch, "idempotency"}
    elseif chain > ARGV[5] then
      return redis.error_reply("STALE the chain is " .. chain)
    end
  end
end
local offset, epoch = 0, ""
if size > 0 or version ~= "0" then
  local meta = redis.call("HMGET", KEYS[1], "e", "o", "c", "v", "w")
  epoch, offset = meta[1], tonumber(meta[2] or "0")
  if epoch and meta[3] ~= ARGV[5] then
    if meta[3] > ARGV[5] then
      return redis.error_reply("STALE the chain is " .. meta[3])
    end
    epoch = false
  end
  if not epoch then
    epoch, offset = ARGV[6], 0
    redis.call("DEL", KEYS[2])
    -- At once: what is suppressed below has a position, too.
    redis.call("HSET", KEYS[1], "e", epoch, "o", 0, "c", ARGV[5])
  end
  if version ~= "0" then
    -- As decimal text: Lua's numbers take versions above 2^53 that are not equal for equal.
    local last = meta[5] == ARGV[9] and meta[4] or ""
    if #version < #last or (#version == #last and version <= last) then
      return {offset, epoch, "version"}
    end
    redis.call("HSET", KEYS[1], "v", version, "w", ARGV[9])
  end
  if size > 0 then
    offset = offset + 1
    redis.call("XADD", KEYS[2], "MAXLEN", "=", size, offset .. "-0", "d", ARGV[1])
    redis.call("PEXPIRE", KEYS[2], ARGV[3])
    redis.call("HSET", KEYS[1], "o", offset)
  end
  if redis.call("TTL", KEYS[1]) < tonumber(ARGV[4]) then
    redis.call("EXPIRE", KEYS[1], ARGV[4])
  end
end
if remembered > 0 then
  redis.call("SET", KEYS[4], offset .. ":" .. epoch .. ":" .. ARGV[5], "PX", remembered)
end
local place = size > 0 and (offset .. ":" .. epoch) or "0:"
redis.call("SPUBLISH", KEYS[3], "p" .. place .. ":" .. ARGV[1])
return {offset, epoch, ""}
