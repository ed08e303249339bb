-- publish, a part of trip: puts events and their deliveries into the shard's queues, and leases to the caller at once what
-- may run.
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
-- Returns {0, events, leased, one entry for each event of which there is something to say}. An event is simply queued, or
--       its entry is {its number from 1, code, ...}: 0, subs with a full backlog; 1, receipt of the first time; 2 seen
--       with another fingerprint; 3 the shard is full; 4, subs that must be configured first. leased is 0 where nothing
--       was, or {token, now, how many}, with the places of these among all targets of the call, from 0, ascending, where
--       it was not all of them. Or {1}: a late copy of an earlier call; or the error, as text, of a Redis that is full.
-- Never queues a part of an event. The same call again changes nothing and gets the first answer.
-- Never leases past anything that waits: neither deliveries of the same subscription nor other subscriptions' turn; and
-- nothing to a caller that has given up, as when Redis hung.
local now = clock()
local made = text(now)
local marker = prefix .. 'call:' .. ARGV[2]
local before = call('GET', marker)
local since = ARGV[3]   -- the first call of the row
if before then
  local number, first, answer = string.match(before, '^(%d+)|(%d+)|(.*)$')
  if number == ARGV[3] then return cjson.decode(answer) end
  if tonumber(number) > tonumber(ARGV[3]) then return {1} end
  if number == ARGV[11] then since = first end
end

-- A write that changes nothing, since a full Redis (maxmemory, noeviction) refuses it: then nothing is queued.
local refused = redis.pcall('SETRANGE', marker, 0, '')
if type(refused) == 'table' then return refused.err end
wrote = true

local waiting = call('HLEN', prefix .. 'deliveries')
local bytes = tonumber(call('HGET', prefix .. 'totals', 'bytes') or 0)
local most, most_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local deliveries, payloads, refs, fresh, seen_now = {}, {}, {}, {}, {}
local types, new_bytes = {}, 0   -- events taken by type; bytes of payloads that wait
local answer = {0, tonumber(ARGV[13]), 0}
local leases_left, lease_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local token
local leased, places = {}, {}   -- deliveries, and their places among all targets
if gave_up(now, ARGV[12]) then leases_left = 0 end
if leases_left > 0 and call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 1)[1] then leases_left = 0 end

-- An event begins at i in ARGV: id, fingerprint, receipt, payload, deliveries, bytes, number of targets. Nothing is made
-- of it but what is written: a table for each would cost more than all the rest.
local function seen(i, n)
  local id, fingerprint = ARGV[i], ARGV[i + 1]
  if fingerprint == '' then return nil end
  local first = seen_now[id] or call('GET', prefix .. 'seen:' .. id)
  if not first then return nil end
  local before, receipt = string.match(first, '^([^|]*)|(.*)$')
  if before ~= fingerprint then return {n, 2} end
  return {n, 1, receipt}
end

-- Whether a delivery of the subscription may be leased at once.
local function leasable(s)
  if s[FR] + s[DU] > 0 or s[ACT] == 0 or s[PAU] == 1 then return false end
  token = token or call('HINCRBY', prefix .. 'totals', 'token', 1)
  roll(s, now)
  return room(s) > 0
end

-- Ends a delivery that its subscription does not take: it is gone, or its backlog is full.
local function refuse(s, delivery, size, type, key)
  local c = stats_of(s)
  if s[GONE] == 1 then
    tally('canceled', 1)
    over(now, '', delivery, 'c', '0', size, gone_reason, c[NS], s[ID], type, key, '')
    return
  end
  c[FAIL] = c[FAIL] + 1
  tally('failed', 1)
  s[FULL_NOW] = 1
  over(now, ordinal_of(s), delivery, 'f', '0', size, 'backlog_full', c[NS], s[ID], type, key, '')
end

-- The subscriptions of an event that the queue does not know, nil if none; flush writes the others. Targets are at first,
-- first + 2 and so on to last.
local function unknown(first, last, n)
  local entry
  for t = first, last, 2 do
    local s = touched[ARGV[t]]
    if not s then
      entry = entry or {n, 4}
      entry[#entry + 1] = ARGV[t]
    else
      list(s)
    end
  end
  return entry
end

local function wait(s, delivery)
  s[FR] = s[FR] + 1
  local list = fresh[s[ID]]
  if list then list[#list + 1] = delivery else fresh[s[ID]] = {delivery} end
end

-- Takes the event with this number, whose targets are at first to last, the first of them at this place among all targets
-- of the call. Returns its entry, if there is something to say.
local function take(i, first, last, n, place)
  local id, payload = ARGV[i], ARGV[i + 3]
  local entry, targets, queued, size, key, before = nil, (last + 1 - first) / 2, 0, #payload, id, #leased
  local type, size_text = string.match(payload, '^[^\n]*'), text(size)
  local fits = size <= lease_bytes
  if ARGV[i + 1] ~= '' then
    key = id .. '#' .. made
    seen_now[id] = ARGV[i + 1] .. '|' .. ARGV[i + 2]
  end
  local record_end = '|0|' .. made .. '|' .. size_text .. '|' .. type .. '|' .. key
  for t = first, last, 2 do
    local s, delivery = touched[ARGV[t]], ARGV[t + 1]
    if s[GONE] == 1 or s[FR] + s[DU] + s[INF] >= s[MAX] then
      refuse(s, delivery, size_text, type, key)
      if s[GONE] == 0 then
        entry = entry or {n, 0}
        entry[#entry + 1] = s[ID]
      end
    else
      s[FULL_NOW] = s[FULL_NOW] or 0
      queued = queued + 1
      deliveries[#deliveries + 1] = delivery
      deliveries[#deliveries + 1] = s[ID] .. record_end
      if fits and leases_left > 0 and leasable(s) then
        s[INF] = s[INF] + 1
        leases_left = leases_left - 1
        leased[#leased + 1] = delivery
        places[#places + 1] = place
      else
        wait(s, delivery)
      end
    end
    place = place + 1
  end
  if #leased > before then lease_bytes = lease_bytes - size end
  if ARGV[i + 4] ~= '0' or targets == 0 then types[type] = (types[type] or 0) + 1 end   -- not again for a further part
  if targets > 0 then
    payloads[#payloads + 1] = key
    payloads[#payloads + 1] = payload
    if queued > 0 then new_bytes = new_bytes + size else tally('kept', size) end
    waiting = waiting + queued
  end
  if targets > 1 then
    refs[#refs + 1] = key
    refs[#refs + 1] = text(queued + (targets - queued) * kept_one)
  end
  return entry
end

local events, ids, i = tonumber(ARGV[13]), {}, 14
for _ = 1, events do
  local last = i + 6 + 2 * ARGV[i + 6]
  for t = i + 7, last, 2 do ids[#ids + 1] = ARGV[t] end
  i = last + 1
end
load(ids)
local place = 0
i = 14
for n = 1, events do
  local first, last = i + 7, i + 6 + 2 * ARGV[i + 6]
  local entry = seen(i, n) or unknown(first, last, n)
  if not entry then
    local whole = tonumber(ARGV[i + 4])
    if whole > 0 and (waiting + whole > most or bytes + new_bytes + ARGV[i + 5] > most_bytes) then
      entry = {n, 3}
    else
      entry = take(i, first, last, n, place)
    end
  end
  if entry then answer[#answer + 1] = entry end
  place = place + (last + 1 - first) / 2
  i = last + 1
end

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
  claim(token, leased, now + ARGV[10])
  answer[3] = {token, now, #leased, unpack(#leased < place and places or {})}
end
for id, first in pairs(seen_now) do call('SET', prefix .. 'seen:' .. id, first, 'PX', ARGV[5]) end
for _, s in ipairs(order) do
  local full_now = s[FULL_NOW]
  if full_now then
    dirty[#dirty + 1] = s
    if s[FULL] ~= full_now then
      s[FULL] = full_now
      urgent[#urgent + 1] = s
    end
  end
end
call('SET', marker, ARGV[3] .. '|' .. since .. '|' .. cjson.encode(answer), 'PX', ARGV[4])
return answer
