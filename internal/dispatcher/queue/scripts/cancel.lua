-- cancel: a subscription is gone; ends what waits for it, one bounded step.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] sub  [3] most deliveries in this step
-- Returns {cancelled in this step, still waiting}. Call it until nothing waits; what is in flight ends as it ends.
-- Never touches another subscription's deliveries; repeating it does no harm.
local now, id, most = clock(), ARGV[2], tonumber(ARGV[3])
local s = subscription(id)
if not s then
  call('SREM', prefix .. 'subs', id)
  return {0, 0}
end
s[GONE] = 1
local ids = call('LPOP', prefix .. 'fresh:' .. id, most) or {}
s[FR] = s[FR] - #ids
if #ids < most then
  local due = call('ZRANGE', prefix .. 'due:' .. id, 0, most - #ids - 1)
  variadic('ZREM', prefix .. 'due:' .. id, due)
  s[DU] = s[DU] - #due
  for _, d in ipairs(due) do ids[#ids + 1] = d end
end
local retrying, c = 0, stats_of(s)
for i, rec in ipairs(gather('HMGET', prefix .. 'deliveries', ids)) do
  local sub, attempts, _, size, event, type, more = parse(rec)
  if sub then
    if attempts > 0 then retrying = retrying + 1 end
    over(now, '', ids[i], 'c', text(attempts) .. more, size, gone_reason, c[NS], sub, type, event, '', attempts > 0)
  end
end
finish()
if #ids > 0 then
  c[CANC] = c[CANC] + #ids
  tally('canceled', #ids)
  s[RTRY] = s[RTRY] - retrying
end
local over = s[FR] + s[DU] == 0
if over then s[RU], s[RH], s[RS], s[RN], s[DRT] = 0, 0, 0, 0, 0 end
flush(now)
if over then
  call('SREM', prefix .. 'subs', id)   -- not before: a dispatcher that finds it here goes on where another one died
  call('DEL', prefix .. 'rate:' .. id)
  call('ZREM', prefix .. 'dirty', id)
  call('ZREM', prefix .. 'urgent', id)
end
return {#ids, s[FR] + s[DU]}
