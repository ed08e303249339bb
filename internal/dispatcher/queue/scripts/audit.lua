-- audit: proves over the whole shard that nothing is in two places or in none, and that every count is true.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] most deliveries, ended ones included: a larger shard is refused, since an audit holds Redis meanwhile
-- Returns {deliveries audited, code, subject, code, subject, ...}, or {-1, deliveries} where there are too many.
-- Codes: 1 delivery in no place  2 in several  3 in a place but without record  4 record names another subscription
--        5 payload missing  6 payload without delivery  7 wrong references  8 wrong count of a subscription
--        9 in ready but must not be  10 missing from ready  11 wrong bytes  12 unknown subscription  13 wrong rate sum
--        14 in ready too late  15 record that its bucket or its subscription does not list  16 bucket without records
--        17 wrong bytes of the history  18 wrong bytes of the outbox  19 wrong bytes of earlier attempts
--        20 in the queue and in the history  21 wrong mark of `dirty`  22 wrong count of the retrying
--        23 lease of nothing
-- Writes nothing.
local now = clock()
dry = true
local count = call('HLEN', prefix .. 'deliveries')
for _, bucket in ipairs(call('ZRANGE', prefix .. 'pasts', 0, -1)) do
  count = count + call('HLEN', prefix .. 'past:' .. bucket)
end
if count > tonumber(ARGV[2]) then return {-1, count} end
local answer = {count}
local function report(code, subject)
  answer[#answer + 1] = code
  answer[#answer + 1] = subject
end

local places, leased, subs = {}, {}, {}   -- delivery -> places; delivery -> true; subscription -> what was counted
local function counted(id)
  if not subs[id] then subs[id] = {fresh = 0, due = 0, inf = 0, rtry = 0} end
  return subs[id]
end
for _, id in ipairs(call('SMEMBERS', prefix .. 'subs')) do counted(id) end

local records, events, bytes, tries = {}, {}, 0, 0
local all = call('HGETALL', prefix .. 'deliveries')
for i = 1, #all, 2 do
  local sub, attempts, _, size, event = parse(all[i + 1])
  records[all[i]] = {sub = sub, attempts = attempts}
  if attempts > 0 then
    counted(sub).rtry = counted(sub).rtry + 1
    for _, attempt in ipairs(call('LRANGE', prefix .. 'tries:' .. all[i], 0, -1)) do tries = tries + #attempt end
  end
  counted(sub)
  if not events[event] then
    events[event] = 0
    bytes = bytes + size
  end
  events[event] = events[event] + 1
end

local function place(id, sub)
  places[id] = (places[id] or 0) + 1
  if not records[id] then
    report(3, id)
  elseif sub and records[id].sub ~= sub then
    report(4, id)
  end
end
for id, c in pairs(subs) do
  local fresh = call('LRANGE', prefix .. 'fresh:' .. id, 0, -1)
  local due = call('ZRANGE', prefix .. 'due:' .. id, 0, -1)
  for _, d in ipairs(fresh) do place(d, id) end
  for _, d in ipairs(due) do place(d, id) end
  c.fresh, c.due = #fresh, #due
end
for _, token in ipairs(call('ZRANGE', prefix .. 'leases', 0, -1)) do
  local claimed = call('SMEMBERS', prefix .. 'claims:' .. token)
  if #claimed == 0 then report(23, token) end
  for _, id in ipairs(claimed) do
    place(id)
    if records[id] then counted(records[id].sub).inf = counted(records[id].sub).inf + 1 end
  end
end
for id in pairs(records) do
  if not places[id] then report(1, id) elseif places[id] > 1 then report(2, id) end
end

-- The history: entries of `ended`, and records with their places in the indexes.
local kept, outbox, filed = 0, 0, call('GET', prefix .. 'filed')
local sizes, listed = {}, {}
local function refers(size, event)
  sizes[event] = size
  events[event] = (events[event] or 0) + kept_one
end
for _, entry in ipairs(call('XRANGE', prefix .. 'ended', '-', '+')) do
  for i = 1, #entry[2], 2 do
    local id, head, size, _, event = ended_fields(entry[2][i])
    refers(size, event)
    if filed and not later(entry[1], filed) then
      outbox = outbox + #head + #entry[2][i + 1] + size
    elseif records[id] then
      report(20, id)
    end
  end
end
local function is_listed(id, sub)
  if not listed[sub] then
    listed[sub] = {}
    for _, other in ipairs(call('LRANGE', prefix .. 'hist:' .. sub, 0, -1)) do listed[sub][other] = true end
  end
  return listed[sub][id]
end
for _, bucket in ipairs(call('ZRANGE', prefix .. 'pasts', 0, -1)) do
  local past = call('HGETALL', prefix .. 'past:' .. bucket)
  if #past == 0 then report(16, bucket) end
  for i = 1, #past, 2 do
    local id, value = past[i], past[i + 1]
    local size, sub, event = record_fields(value)
    refers(size, event)
    kept = kept + #value
    if bucket_of(id) ~= bucket or not is_listed(id, sub) then report(15, id) end
    if records[id] then report(20, id) end
  end
end
for event, n in pairs(events) do
  if n % kept_one == 0 then kept = kept + sizes[event] end
end

for event, n in pairs(events) do
  if call('HEXISTS', prefix .. 'payloads', event) == 0 then report(5, event) end
  if tonumber(call('HGET', prefix .. 'refs', event) or (n == kept_one and n or 1)) ~= n then report(7, event) end
end
for _, key in ipairs({'payloads', 'refs'}) do
  for _, event in ipairs(call('HKEYS', prefix .. key)) do
    if not events[event] then report(6, event) end
  end
end
if tonumber(call('HGET', prefix .. 'totals', 'bytes') or 0) ~= bytes then report(11, bytes) end
for code, total in pairs({[17] = {'kept', kept}, [18] = {'outbox', outbox}, [19] = {'tries', tries}}) do
  if tonumber(call('HGET', prefix .. 'totals', total[1]) or 0) ~= total[2] then report(code, total[2]) end
end

local function audit_ready(s)
  local score = call('ZSCORE', KEYS[1], s[ID])
  local cap = s[CF] >= failing_after and 1 or s[CAP]
  local runs = s[GONE] == 0 and s[ACT] == 1 and s[PAU] == 0 and s[FR] + s[DU] > 0 and s[INF] < cap
    and (s[RATE] - s[RU] - s[INF] > 0 or s[RU] > 0)
  if score and not runs then report(9, s[ID]) end
  if runs and not score then report(10, s[ID]) end
  if not (runs and score) then return end
  local at = runnable(s, now)
  if at and tonumber(score) > at then report(14, s[ID]) end
end
local function audit_rate(s)
  if s[RU] == 0 or now >= (s[RH] + 1) * 1000 + window then return end
  local sum, all = s[RN], call('HVALS', prefix .. 'rate:' .. s[ID])
  for _, n in ipairs(all) do sum = sum + tonumber(n) end
  if sum ~= s[RU] then report(13, s[ID]) end
end
local all_subs, retrying = {}, 0
for id in pairs(subs) do all_subs[#all_subs + 1] = id end
load(all_subs)
for id, c in pairs(subs) do
  local s = touched[id]
  if not s then
    report(12, id)
  else
    if s[FR] ~= c.fresh or s[DU] ~= c.due or s[INF] ~= c.inf or s[RTRY] ~= c.rtry then report(8, id) end
    if (s[DRT] == 1) ~= (call('ZSCORE', prefix .. 'dirty', id) ~= false) then report(21, id) end
    retrying = retrying + c.rtry
    audit_rate(s)
    audit_ready(s)
  end
end
if tonumber(call('HGET', prefix .. 'totals', 'retrying') or 0) ~= retrying then report(22, retrying) end
for _, id in ipairs(call('ZRANGE', KEYS[1], 0, -1)) do
  if not subs[id] then report(9, id) end
end
return answer
