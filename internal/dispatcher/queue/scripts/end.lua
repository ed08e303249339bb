-- end: somebody cancels a delivery.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] delivery
-- Returns {0} cancelled, {1} in flight: it ends with its attempt, {2} there is none that is unfinished.
-- The same call again changes nothing more.
local now, id = clock(), ARGV[2]
whatever_the_memory()
local sub, attempts, created, size, event, type, more = parse(call('HGET', prefix .. 'deliveries', id))
if not sub then return {2} end
local s = subscription(sub)
if call('ZREM', prefix .. 'due:' .. sub, id) == 1 then
  s[DU] = s[DU] - 1
elseif call('LREM', prefix .. 'fresh:' .. sub, 1, id) == 1 then
  s[FR] = s[FR] - 1
else
  if not is_marked(more) then
    if more == '' then more = ':0:0::' end
    call('HSET', prefix .. 'deliveries', id, record(sub, text(attempts) .. more .. 'c', created, size, type, event))
  end
  return {1}
end
local c = stats_of(s)
c[CANC] = c[CANC] + 1
over(now, ordinal_of(s), id, 'c', text(attempts) .. more, size, canceled_reason, c[NS], sub, type, event, '', attempts > 0)
finish()
if attempts > 0 then s[RTRY] = s[RTRY] - 1 end
tally('canceled', 1)
dirty[1] = s
flush(now)
return {0}
