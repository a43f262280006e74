-- Gives up a claim.
-- KEYS  1 see once_begin
-- ARGV  1 the claim's name
-- Returns 1, or 0 if it was not there
-- Cost  O(1)
if redis.call("GET", KEYS[1]) ~= "c" .. ARGV[1] then
  return 0
end
return redis.call("DEL", KEYS[1])
