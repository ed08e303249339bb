-- publish: puts events and their deliveries into the shard's queues, and leases to the caller at once what may run.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] caller (a queue of a process)  [3] number of its call, each greater than the one before
--       [4] ms for which its last call is remembered  [5] ms for which event ids are remembered
--       [6] most unfinished deliveries in the shard  [7] most payload bytes in the shard
--       [8] most deliveries to lease  [9] most payload bytes to lease  [10] lease (ms)  [11] number of the caller's
--       latest call that was answered: with it a row of calls goes on, of which confirm knows that none is missing
--       [12] time (ms) at which the caller gives up, 0 where it does not know Redis' clock yet
--       [13] events, then for each: event id, fingerprint ('' = the id cannot come twice), receipt (kept with the
--       fingerprint), payload, deliveries and payload bytes that there must be room for (of the event in all its parts; 0
--       for a further part, which no bound refuses since the first was queued), targets, and for each target: sub,
--       delivery
-- Returns {0, one entry for each event}: {0, subs with a full backlog...} queued, {1, receipt of the first time},
--       {2} seen with another fingerprint, {3} the shard is full, {4, sub, ...} these must be configured first; and
--       where some were leased: {token, now, place...} of these among all targets of the call, from 0, ascending};
--       or {1}: a late copy of an earlier call.
-- Never queues a part of an event. The same call again changes nothing and gets the first answer.
-- Never leases past anything that waits: neither deliveries of the same subscription nor other subscriptions' turn; and
-- nothing to a caller that has given up, as when Redis hung.
local now = clock()
local present = text(now)
local marker = prefix .. 'call:' .. ARGV[2]
local before = call('GET', marker)
local since = ARGV[3]   -- the first call of the row
if before then
  local number, first, answer = string.match(before, '^(%d+)|(%d+)|(.*)$')
  if number == ARGV[3] then return cjson.decode(answer) end
  if tonumber(number) > tonumber(ARGV[3]) then return {1} end
  if number == ARGV[11] then since = first end
end

local waiting = call('HLEN', prefix .. 'deliveries')
local bytes = tonumber(call('HGET', prefix .. 'totals', 'bytes') or 0)
local most, most_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local deliveries, payloads, refs, fresh, full, changed, seen_now = {}, {}, {}, {}, {}, {}, {}
local types, new_bytes = {}, 0   -- events taken by type; bytes of payloads that wait
local answer = {0}
local leases_left, lease_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local token
local leased, places = {}, {}   -- deliveries, and their places among all targets
if gave_up(now, ARGV[12]) then leases_left = 0 end
if leases_left > 0 and call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 1)[1] then leases_left = 0 end

local function seen(e)
  if e.fingerprint == '' then return nil end
  local first = seen_now[e.id] or call('GET', prefix .. 'seen:' .. e.id)
  if not first then return nil end
  local fingerprint, receipt = string.match(first, '^([^|]*)|(.*)$')
  if fingerprint ~= e.fingerprint then return {2} end
  return {1, receipt}
end

-- Whether a delivery of the subscription may be leased at once.
local function leasable(s)
  if leases_left <= 0 or s.fr + s.du > 0 or s.act == 0 or s.pau == 1 then return false end
  -- The first write: a full Redis refuses it. After those of `roll` it would refuse nothing.
  token = token or call('HINCRBY', prefix .. 'totals', 'token', 1)
  if not s.rolled then
    s.rolled = true
    roll(s, now)
  end
  return room(s) > 0
end

-- Leases one delivery, or puts it into its subscription's queue; false where it ended at once.
local function enqueue(s, delivery, size, type, key, place, fits)
  if s.gone == 1 then
    tally('canceled', 1)
    over(now, '', delivery, 'c', '0', size, gone_reason, stats_of(s).ns, s.id, type, key, '')
    return false
  end
  if s.fr + s.du + s.inf >= s.max then
    local c = stats_of(s)
    c.fail = c.fail + 1
    tally('failed', 1)
    full[s.id] = true
    over(now, ordinal_of(s), delivery, 'f', '0', size, 'backlog_full', c.ns, s.id, type, key, '')
    return false
  end
  changed[s.id] = true
  deliveries[#deliveries + 1] = delivery
  deliveries[#deliveries + 1] = record(s.id, '0', present, size, type, key)
  if fits and leasable(s) then
    s.inf = s.inf + 1
    leases_left = leases_left - 1
    leased[#leased + 1] = delivery
    places[#places + 1] = place
    return true
  end
  s.fr = s.fr + 1
  local list = fresh[s.id]
  if not list then
    list = {}
    fresh[s.id] = list
  end
  list[#list + 1] = delivery
  return true
end

local used = {}   -- subscriptions of events that were not seen before

-- The subscriptions of an event that the queue does not know, nil if none.
local function unknown(e)
  local list
  for _, target in ipairs(e.targets) do
    local s = touched[target[1]]
    if not s then
      list = list or {4}
      list[#list + 1] = target[1]
    elseif not s.used then
      s.used = true
      used[#used + 1] = s
    end
  end
  return list
end

local function take(e)
  local result, queued, size, key, before = {0}, 0, #e.payload, e.id, #leased
  local size_text, type = text(size), string.match(e.payload, '^[^\n]*')
  local fits = size <= lease_bytes
  if e.fingerprint ~= '' then
    key = e.id .. '#' .. present
    seen_now[e.id] = e.fingerprint .. '|' .. e.receipt
  end
  for t, target in ipairs(e.targets) do
    local s = touched[target[1]]
    if enqueue(s, target[2], size_text, type, key, e.place + t - 1, fits) then
      queued = queued + 1
    elseif s.gone == 0 then
      result[#result + 1] = s.id
    end
  end
  if #leased > before then lease_bytes = lease_bytes - size end
  local targets = #e.targets
  if e.deliveries > 0 or targets == 0 then types[type] = (types[type] or 0) + 1 end   -- not again for a further part
  if targets > 0 then
    payloads[#payloads + 1] = key
    payloads[#payloads + 1] = e.payload
    if queued > 0 then new_bytes = new_bytes + size else tally('kept', size) end
    waiting = waiting + queued
  end
  if targets > 1 then
    refs[#refs + 1] = key
    refs[#refs + 1] = text(queued + (targets - queued) * kept_one)
  end
  return result
end

local events, ids, i = {}, {}, 14
for n = 1, tonumber(ARGV[13]) do
  local e = {
    id = ARGV[i], fingerprint = ARGV[i + 1], receipt = ARGV[i + 2], payload = ARGV[i + 3],
    deliveries = tonumber(ARGV[i + 4]), bytes = tonumber(ARGV[i + 5]), targets = {},
    place = #ids
  }
  local last = i + 6 + 2 * tonumber(ARGV[i + 6])
  for t = i + 7, last, 2 do
    e.targets[#e.targets + 1] = {ARGV[t], ARGV[t + 1]}
    ids[#ids + 1] = ARGV[t]
  end
  events[n] = e
  i = last + 1
end
load(ids)
for n, e in ipairs(events) do
  local result = seen(e) or unknown(e)
  if not result then
    if e.deliveries > 0 and (waiting + e.deliveries > most or bytes + new_bytes + e.bytes > most_bytes) then
      result = {3}
    else
      result = take(e)
    end
  end
  answer[n + 1] = result
end

order = used   -- flush leaves the others as they are
-- A full Redis (maxmemory, noeviction) refuses the first write of a call and with it the whole call.
variadic('HSET', prefix .. 'payloads', payloads)
variadic('HSET', prefix .. 'deliveries', deliveries)
variadic('HSET', prefix .. 'refs', refs)
append()
for type, n in pairs(types) do
  call('HINCRBY', prefix .. 'types', type, n)
  tally('events', n)
end
tally('bytes', new_bytes)
for id, list in pairs(fresh) do variadic('RPUSH', prefix .. 'fresh:' .. id, list) end
if #leased > 0 then
  local claims, expiry, owner = {}, text(now + tonumber(ARGV[10])), text(token) .. ':'
  for n, delivery in ipairs(leased) do
    claims[2 * n - 1] = expiry
    claims[2 * n] = owner .. delivery
  end
  variadic('ZADD', prefix .. 'leases', claims)
  table.insert(places, 1, now)
  table.insert(places, 1, token)
  answer[#answer + 1] = places
end
for id, first in pairs(seen_now) do call('SET', prefix .. 'seen:' .. id, first, 'PX', ARGV[5]) end
for _, s in ipairs(order) do
  local full_now = full[s.id] and 1 or 0
  if full_now == 1 or changed[s.id] then
    dirty[#dirty + 1] = s
    if s.full ~= full_now then
      s.full = full_now
      urgent[#urgent + 1] = s
    end
  end
end
flush(now)
call('SET', marker, ARGV[3] .. '|' .. since .. '|' .. cjson.encode(answer), 'PX', ARGV[4])
return answer
