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
    c[OK], c[FAIL], c[CANC], s[FR], s[DU], s[INF], s[RTRY], s[CF], c[LAT], c[LOK], c[LST], c[LRS], c[LER], c[LSUM],
    c[LCNT], s[FULL], s[VER]
  } or {}
end
return answer
