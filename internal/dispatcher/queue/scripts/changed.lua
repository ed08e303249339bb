-- changed: statistics of subscriptions that changed since they were last reflected, longest ago first; or of those named.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] 'dirty', 'urgent', or '' with [4...]  [3] most  [4...] subs
-- Returns {sub, {field values} ...}. Writes nothing.
local list = {}
if ARGV[2] ~= '' then
  list = call('ZRANGE', prefix .. ARGV[2], 0, tonumber(ARGV[3]) - 1)
else
  for i = 4, #ARGV do list[#list + 1] = ARGV[i] end
end
load(list)
local answer = {}
for _, id in ipairs(list) do
  local s = touched[id]
  local c = s and stats_of(s)
  answer[#answer + 1] = id
  answer[#answer + 1] = s and {
    c.ok, c.fail, c.canc, s.fr, s.du, s.inf, s.rtry, s.cf, c.lat, c.lok, c.lst, c.lrs, c.ler, c.lsum, c.lcnt, s.full, s.ver
  } or {}
end
return answer
