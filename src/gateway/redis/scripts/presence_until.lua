-- Notes which entries are to be held, before they are: whoever looks later finds each of them.
-- KEYS  1 held (zset: «channel TAB session» by ms)
-- ARGV  1 ms to hold, 2... «channel TAB session»
-- Returns the ms until which they are to be held
-- Cost  O(entries * log(all that are held))
local time = redis.call("TIME")
local till = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV do
  redis.call("ZADD", KEYS[1], till, ARGV[i])
end
return till
