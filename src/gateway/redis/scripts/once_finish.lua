-- Stores the result of who claimed a key.
-- KEYS  1 see once_begin
-- ARGV  1 the claim's name, 2 result, 3 ms that it is kept
-- Returns 1, or 0 if somebody else has the key
-- Cost  O(1)
local found = redis.call("GET", KEYS[1])
if found and found ~= "c" .. ARGV[1] then
  return 0
end
redis.call("SET", KEYS[1], "r" .. ARGV[2], "PX", ARGV[3])
return 1
