-- Lists entries of a channel that belong to an instance, page by page.
-- KEYS  1 who: see presence_enter
-- ARGV  1 instance, 2 cursor (0 at first), 3 about how many to look at
-- Returns {next cursor (0: no more), session, ...}
-- Cost  O(looked at)
local page = redis.call("HSCAN", KEYS[1], ARGV[2], "COUNT", ARGV[3])
local beginning = "o " .. ARGV[1] .. " "
local found = { page[1] }
for i = 1, #page[2], 2 do
  if string.sub(page[2][i + 1], 1, #beginning) == beginning then
    table.insert(found, page[2][i])
  end
end
return found
