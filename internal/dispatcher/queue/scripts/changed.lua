-- changed: statistics of subscriptions that changed since they were last reflected, longest ago first; or of those named.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] 'dirty', 'urgent', or '' with [4...]  [3] most  [4...] subs
-- Returns {sub, version, {field values} ...}. Writes nothing.
local columns = {'ok', 'fail', 'canc', 'fr', 'du', 'inf', 'rtry', 'cf', 'lat', 'lok', 'lst', 'lrs', 'ler', 'lsum', 'lcnt',
  'full', 'gone'}
local list = {}
if ARGV[2] ~= '' then
  list = call('ZRANGE', prefix .. ARGV[2], 0, tonumber(ARGV[3]) - 1, 'WITHSCORES')
else
  for i = 4, #ARGV do
    list[#list + 1] = ARGV[i]
    list[#list + 1] = call('ZSCORE', prefix .. 'dirty', ARGV[i]) or 0
  end
end
local answer = {}
for i = 1, #list, 2 do
  answer[#answer + 1] = list[i]
  answer[#answer + 1] = list[i + 1]
  answer[#answer + 1] = call('HMGET', prefix .. 'sub:' .. list[i], unpack(columns))
end
return answer
