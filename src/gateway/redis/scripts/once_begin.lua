-- Claims a key, or tells what became of who had it before.
-- KEYS  1 string: «c» and the claim's name, or «r» and the result
-- ARGV  1 the claim's name, 2 ms that the claim lasts
-- Returns {"mine"}, {"running"} or {"done", result}
-- Cost  O(1)
local found = redis.call("GET", KEYS[1])
if found and string.sub(found, 1, 1) == "r" then
  return { "done", string.sub(found, 2) }
end
if found and found ~= "c" .. ARGV[1] then
  return { "running" }
end
redis.call("SET", KEYS[1], "c" .. ARGV[1], "PX", ARGV[2])
return { "mine" }
