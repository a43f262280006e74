-- Lets a partition go, if it is this instance's.
-- KEYS  1 who takes (string, expires)
-- ARGV  1 who lets go
-- Returns 1, or 0 if it is not its
-- Cost  O(1)
if redis.call("GET", KEYS[1]) == ARGV[1] then
  return redis.call("DEL", KEYS[1])
end
return 0
