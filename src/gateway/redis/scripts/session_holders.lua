-- Names the instances that hold sessions of a partition.
-- KEYS  1 held: see session_open
-- Returns {instance, ...}
-- Cost  O(instances * log(sessions of the partition))
local found = {}
local from = "-"
while true do
  local member = redis.call("ZRANGEBYLEX", KEYS[1], from, "+", "LIMIT", 0, 1)[1]
  if not member then
    return found
  end
  local instance = string.match(member, "^[^\t]*")
  table.insert(found, instance)
  from = "[" .. instance .. "\n"
end
