-- Claims a lapsed instance, or renews the claim.
-- KEYS  1 instances: see instance_announce
-- ARGV  1 the dead, 2 who claims, 3 ms that the claim lasts
-- Returns 1 to one at a time, else 0
-- Cost  O(1)
local PARTS = "^(%d+) (%d+) (%d+) (%S+) (%d+)$"
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen, since, lease, claimer, till = string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", PARTS)
local my_seen, my_since, my_lease, my_claimer = string.match(redis.call("HGET", KEYS[1], ARGV[2]) or "", PARTS)
if not seen or not my_seen or my_claimer ~= "-" or now >= my_seen + my_lease then
  return 0
end
if claimer ~= ARGV[2] then
  if claimer == "-" and now < seen + lease then
    return 0
  end
  if claimer ~= "-" and now < tonumber(till) then
    return 0
  end
  -- Whoever claims was there, without a longer pause, for as long as the dead one could have shown itself.
  if now - my_since < tonumber(lease) then
    return 0
  end
end
till = string.format("%.0f", now + tonumber(ARGV[3]))
redis.call("HSET", KEYS[1], ARGV[1], seen .. " " .. since .. " " .. lease .. " " .. ARGV[2] .. " " .. till)
return 1
