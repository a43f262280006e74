-- Forgets entries that were looked at; one that was held anew meanwhile stays as it is.
-- KEYS  1 held: see presence_until
-- ARGV  1 what they stood at (presence_due), then 2... «channel TAB session» and 0, or the ms until which it is held still
-- Returns nothing
-- Cost  O(entries * log(all that are held))
for i = 2, #ARGV, 2 do
  if redis.call("ZSCORE", KEYS[1], ARGV[i]) == ARGV[1] then
    if ARGV[i + 1] == "0" then
      redis.call("ZREM", KEYS[1], ARGV[i])
    else
      redis.call("ZADD", KEYS[1], ARGV[i + 1], ARGV[i])
    end
  end
end
