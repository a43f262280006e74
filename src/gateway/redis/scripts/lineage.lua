-- Which uninterrupted life of the data this is: a chain goes on until data may have been lost.
-- KEYS  1 lineage (hash: schema, number, chain, mark, and per server «run:ID»)
-- ARGV  1 schema, 2 server's id, 3 its run id, 4 1 if a restart of this server loses nothing, 5 1 if it was promoted,
--       6 name for a new chain, 7 highest number the caller has seen, 8 highest mark the caller has seen
-- Returns {schema, number, chain, mark}; with another schema nothing else is touched.
-- Cost  O(1)
local schema = redis.call("HGET", KEYS[1], "schema")
if schema and schema ~= ARGV[1] then
  return {tonumber(schema), 0, "", 0}
end
local run = "run:" .. ARGV[2]
local known = redis.call("HMGET", KEYS[1], "number", "chain", "mark", run)
local number, chain, mark = tonumber(known[1] or "0"), known[2], tonumber(known[3] or "0")
local same = chain
if same and known[4] ~= ARGV[3] then
  -- Another run than we knew: a server that came new and empty takes nothing away, a restart may, a promotion does.
  local fresh = not known[4] and ARGV[5] == "0"
  same = fresh or (known[4] and ARGV[4] == "1" and ARGV[5] == "0")
end
if same and (mark < tonumber(ARGV[8]) or number < tonumber(ARGV[7])) then
  same = false
end
if not same then
  number = math.max(number, tonumber(ARGV[7])) + 1
  chain = ARGV[6]
end
mark = math.max(mark, tonumber(ARGV[8])) + 1
redis.call("HSET", KEYS[1], "schema", ARGV[1], "number", number, "chain", chain, "mark", mark, run, ARGV[3])
return {tonumber(ARGV[1]), number, chain, mark}
