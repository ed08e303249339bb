-- configure: tells the shard a subscription's limits and whether it may run.
-- KEYS  [1] ready
-- ARGV  [1] now, then for each: sub, generation, requests a minute, places in flight, backlog bound, active, paused (1/0),
--       namespace
-- Returns {earliest (ms, -1 none), for each 1 changed, 0 the same, 2 refused: a newer generation is known, 3 refused: it
--       was cancelled}.
-- Never lets an older generation undo a newer one, never brings a cancelled subscription back.
local now = clock()
whatever_the_memory()
local answer, ids = {-1}, {}
for i = 2, #ARGV, 8 do ids[#ids + 1] = ARGV[i] end
load(ids)

-- What is new starts with nothing, as lib.lua unpacks it.
local function new(id)
  local s = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', id, prefix .. 'sub:' .. id, 0, false,
    {0, 0, 0, 0, 0, 0, 0, 0, '', '', ''}, false, false, false, false, false, false
  }
  touched[id] = s
  return s
end

local names = {}
for n, id in ipairs(ids) do
  local s, code, same = touched[id], 1, true
  local i = 2 + 8 * (n - 1)
  local gen = tonumber(ARGV[i + 1])
  if s and s[GONE] == 1 then
    code = 3
  elseif s and s[GEN] > gen then
    code = 2
  else
    s = s or new(id)
    for field = 1, 6 do   -- GEN to PAU
      local value = tonumber(ARGV[i + field])
      if s[field] ~= value then
        s[field] = value
        same = false
      end
    end
    local c = stats_of(s)
    if c[NS] ~= ARGV[i + 7] then
      c[NS] = ARGV[i + 7]
      same = false
    end
    if same then
      code = 0
    else
      names[#names + 1] = id
      list(s)
    end
  end
  answer[n + 1] = code
end
variadic('SADD', prefix .. 'subs', names)
flush(now)
answer[1] = earliest
return answer
