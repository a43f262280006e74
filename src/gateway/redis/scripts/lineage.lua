-- Which uninterrupted life of the data this is: a chain goes on until data may have been lost.
-- KEYS  1 lineage (hash: schema, chain «NUMBER-NAME», mark, and per server «run:ID»: 1 if it is durable, then its lives
--         «RUN/BEFORE», the newest first)
-- ARGV  1 schema, 2 server's id, 3 its run id, 4 what its master called the data before it was promoted, or "-",
--       5 1 if a restart of this server loses nothing, 6 name for a new chain, 7 newest chain that the caller has seen,
--       8 highest mark it has seen
-- Returns {schema, chain, mark}; with another schema nothing else is touched. With memory full what is known is still told.
-- Cost  O(1)
local LIVES = 8
local schema = redis.call("HGET", KEYS[1], "schema")
if schema and schema ~= ARGV[1] then
  return { tonumber(schema), "", 0 }
end
local server = "run:" .. ARGV[2]
local known = redis.call("HMGET", KEYS[1], "chain", "mark", server)
local chain, mark, lives = known[1] or "", tonumber(known[2] or "0"), known[3]
local life = ARGV[3] .. "/" .. ARGV[4]
-- Of a chain newer than the caller's its mark says nothing: somebody else has noticed before.
local told = false
local goes_on = chain > ARGV[7] or (chain ~= "" and chain == ARGV[7] and mark >= tonumber(ARGV[8]))
if not lives then
  -- A server that came new and empty takes nothing away, a promoted replica may.
  goes_on = goes_on and ARGV[4] == "-"
  lives = ARGV[5] .. " " .. life
elseif string.find(lives .. " ", " " .. life .. " ", 1, true) then
  -- Whoever reports an earlier life late begins nothing anew.
  told = goes_on
  if string.sub(lives, 3, 2 + #life) == life then
    lives = ARGV[5] .. string.sub(lives, 2)
  end
else
  local same_run = string.find(lives, " " .. ARGV[3] .. "/", 1, true)
  local durable = ARGV[5] == "1" and string.sub(lives, 1, 1) == "1"
  goes_on = goes_on and ARGV[4] == "-" and (same_run or durable)
  local kept = { ARGV[5], life }
  for each in string.gmatch(string.sub(lives, 2), "%S+") do
    if #kept <= LIVES then
      table.insert(kept, each)
    end
  end
  lives = table.concat(kept, " ")
end
if not goes_on then
  local number = math.max(tonumber(string.match(chain, "^%d+") or "0"), tonumber(string.match(ARGV[7], "^%d+") or "0"))
  chain = string.format("%010d-%s", number + 1, ARGV[6])
end
local after = math.max(mark, tonumber(ARGV[8])) + 1
local fields = { "schema", ARGV[1], "chain", chain, "mark", after, server, lives }
if told then
  local written = redis.pcall("HSET", KEYS[1], unpack(fields))
  if type(written) == "table" and written.err then
    if not string.find(written.err, "OOM", 1, true) then
      return written
    end
    after = mark
  end
else
  redis.call("HSET", KEYS[1], unpack(fields))
end
return { tonumber(ARGV[1]), chain, after }
