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

-- What is new starts with nothing.
local function new(id)
  local s = {
    id = id, gone = 0, full = 0, drt = 0, fr = 0, du = 0, inf = 0, ru = 0, rh = 0, rs = 0, rn = 0, cf = 0, rtry = 0,
    rtry_read = 0, ver = 0,
    stats = {
      ok = 0, fail = 0, canc = 0, lsum = 0, lcnt = 0, lat = 0, lok = 0, lst = 0, lrs = '', ler = '', ns = ''
    }
  }
  touched[id] = s
  return s
end

local names = {}
order = {}   -- flush writes only what changed
for n, id in ipairs(ids) do
  local s, code, same = touched[id], 1, true
  local i = 2 + 8 * (n - 1)
  local gen = tonumber(ARGV[i + 1])
  if s and s.gone == 1 then
    code = 3
  elseif s and s.gen > gen then
    code = 2
  else
    s = s or new(id)
    for f, field in ipairs({'gen', 'rate', 'cap', 'max', 'act', 'pau'}) do
      local value = tonumber(ARGV[i + f])
      if s[field] ~= value then
        s[field] = value
        same = false
      end
    end
    local c = stats_of(s)
    if c.ns ~= ARGV[i + 7] then
      c.ns = ARGV[i + 7]
      same = false
    end
    if same then
      code = 0
    else
      names[#names + 1] = id
      order[#order + 1] = s
    end
  end
  answer[n + 1] = code
end
variadic('SADD', prefix .. 'subs', names)
flush(now)
answer[1] = earliest
return answer
