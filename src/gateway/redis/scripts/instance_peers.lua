-- Lists the instances that are known.
-- KEYS  1 instances: see instance_announce
-- Returns {now in ms, name, «seen since lease claimer until», ...}
-- Cost  O(instances)
local time = redis.call("TIME")
local found = redis.call("HGETALL", KEYS[1])
table.insert(found, 1, string.format("%.0f", time[1] * 1000 + math.floor(time[2] / 1000)))
return found
