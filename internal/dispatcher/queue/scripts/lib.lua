-- Shared by all scripts; put in front of each before it is loaded.
--
-- KEYS[1] is the shard's `ready` key. It routes the call to the node that holds the shard; every other key shares its
-- prefix, hence its hash tag, hence its slot.
-- ARGV[1] is the time in ms, or '' for Redis' own clock (always '' outside tests: one clock for all dispatchers).
--
-- A delivery's record: sub|attempts|created|size|type|event (attempts made, ms, bytes of the payload, the event's type,
-- key of the payload: the event's id, followed by #ms where the publisher chose it and may choose it again after a day).
-- Behind the attempts of one that somebody retried or cancelled stands :base:round:replay:mark (attempts that its retry
-- budget does not count, rounds that have ended, the delivery that it repeats, and c where it ends with its attempt).
-- A payload: type, a newline, body. `refs` counts who needs it: its unfinished deliveries, plus `kept_one` for each
-- field of `ended` and each record of the history. Of one that is not there, a single one of these is left.
-- `tries:<delivery>`, a list, holds the earlier attempts of an unfinished delivery, each as its sender wrote it.
-- A delivery that has ended is first in `ended`, a stream whose entries are fields of
--   ordinal|delivery|completed|outcome|attempts|size|reason|namespace|sub|type|event
-- (ordinal: how many of the subscription had ended then, empty where nobody counts any more; outcome s, f or c; attempts
-- with what stands behind them in the queue), each with its attempts as value. file.lua brings it into the history: a
-- record, the same without ordinal and delivery, with a newline and the attempts behind it, in one of the hashes
-- `past:<bucket>` by delivery. The bucket is the first ten characters of the delivery's id, which is when it was made in
-- steps of 4 s; `pasts` (a zset that sorts by name) has the buckets that there are. `hist:<sub>` is a list of the
-- subscription's deliveries as they were filed; those may have left the history for other reasons.
-- Where a copy is kept elsewhere, an entry stays in `ended` until it is copied; `filed` is then the last one that is in
-- the history.
-- `totals` has, beside counters: bytes (payloads of unfinished deliveries), kept (records of the history and payloads that
-- it alone needs), outbox (what entries up to `filed` take), tries (all those lists).
-- What one call leased is the set `claims:<token>` until it is settled; `leases` has these tokens, scored by their expiry.
-- A subscription is one packed value, so that a batch reads and writes all of its subscriptions in one call each. Unpacked
-- it is an array, which takes Lua much less than a table with names; what is written [INF] here is a number when the
-- script is loaded (fieldNames in scripts.go has their order). First what every step needs:
--   GEN RATE CAP MAX ACT PAU   what configure set: generation, requests a minute, places, backlog bound, active, paused
--                              (ACT, PAU, GONE, FULL and DRT are 1 or 0)
--   GONE                       1 once cancelled for good: takes nothing, its last leases end as they end
--   FULL                       1 while the latest publish found the backlog full
--   DRT                        1 while it is in `dirty`
--   FR DU INF                  waiting in fresh, waiting in due, in flight
--   RU RH                      requests in the rate window but not in flight, and the oldest second that has one
--   RS RN                      the latest second that has one, and how many; `rate:<sub>` has those of the others
--   CF RTRY                    failed attempts since the last success; unfinished deliveries that failed at least once
--   VER                        grows with every change of the counters, over all subscriptions of the shard
-- and then its statistics, another array once they are asked for:
--   OK FAIL CANC               finished by outcome
--   LSUM LCNT                  latency sum (ms) and count of the attempts that were answered
--   LAT LOK LST LRS LER        times (ms) of the last attempt and success; the last attempt's status, reason and error
--   NS                         its namespace
-- What a script notes of a subscription stands behind, false where there is nothing.
-- `totals` has sums over them all, kept in the same step: ok, failed, canceled, lsum, lcnt, retrying (rtry), and events
-- that were taken; `types` has these by type.
local prefix = string.sub(KEYS[1], 1, -6)
local call = redis.call

-- Numbers as doubles, which hold every whole number that Lua has, or as integers of 4 bytes or 1, texts with their
-- lengths: some 60 % of the time that MessagePack takes. Servers that only speak Redis' protocol may lack this library.
local struct = rawget(_G, 'struct')
local layout = '<di4i4i4BBBBBi4i4i4i4I4I4i4i4i4d'
local stats_layout = '<dddddddi4I2c0I2c0I2c0'
local pack_layout = layout .. 'c0'   -- with packed statistics behind it
local stats_at = struct and struct.size(layout) + 1

local window = 60000      -- ms in which at most `rate` requests start
local kept_one = 16777216 -- what a record of the history adds to the references of its payload
local gone_reason, canceled_reason = 'subscription_deleted', 'canceled'
local gone_memory = 3600000   -- ms for which a cancelled subscription is known as gone, so that no late replica revives it
local failing_after = 3   -- failed attempts in a row after which one place in flight must do

-- A whole number as text. Redis and `..` write a number that is passed as such for several times the cost.
local function text(n) return string.format('%d', n) end

local present   -- ms

local function clock()
  if not present then
    if ARGV[1] ~= '' then
      present = tonumber(ARGV[1])
    else
      local t = call('TIME')
      present = t[1] * 1000 + math.floor(t[2] / 1000)
    end
  end
  return present
end

-- Whether the caller has given up by now: its time, where it knows one, is over.
local function gave_up(now, time)
  time = tonumber(time)
  return time > 0 and now > time
end

local wrote = false   -- something, or what would have been

-- A full Redis (maxmemory, noeviction) refuses what may need memory only as the first write of a script. What must work
-- all the same begins with this write, which changes nothing.
local function whatever_the_memory()
  if not wrote then call('ZREM', prefix .. 'leases', '') end
  wrote = true
end

-- Calls a variadic command in pieces that Lua's stack holds, each with the key, if any, and the option in front. Pieces
-- are of even length.
local function variadic(command, key, args, option)
  local n = #args
  for i = 1, n, 4000 do
    local last = math.min(i + 3999, n)
    if option then
      call(command, key, option, unpack(args, i, last))
    elseif key then
      call(command, key, unpack(args, i, last))
    else
      call(command, unpack(args, i, last))
    end
  end
end

-- The same for reads: one list with an answer for each argument.
local function gather(command, key, args)
  local n = #args
  if n == 0 then return {} end
  if n <= 4000 then
    if key then return call(command, key, unpack(args)) end
    return call(command, unpack(args))
  end
  local all = {}
  for i = 1, n, 4000 do
    local part = gather(command, key, {unpack(args, i, math.min(i + 3999, n))})
    for _, v in ipairs(part) do all[#all + 1] = v end
  end
  return all
end

local touched = {}      -- subscriptions of this call by id, false where the queue does not know one
local order = {}        -- those that flush writes, in the order in which they were listed
local dirty, urgent = {}, {}   -- of these, whose counters, and whose health may have changed
local dry = false       -- nothing may be written
local earliest = -1     -- the earliest score that this call put into `ready`

local function unpacked(text)
  local gen, rate, cap, max, act, pau, gone, full, drt, fr, du, inf, ru, rh, rs, rn, cf, rtry, ver, stats
  if struct then
    gen, rate, cap, max, act, pau, gone, full, drt, fr, du, inf, ru, rh, rs, rn, cf, rtry, ver =
      struct.unpack(layout, text)
    stats = string.sub(text, stats_at)
  else
    gen, rate, cap, max, act, pau, gone, full, drt, fr, du, inf, ru, rh, rs, rn, cf, rtry, ver, stats =
      unpack(cjson.decode(text))
  end
  return {
    gen, rate, cap, max, act, pau, gone, full, drt, fr, du, inf, ru, rh, rs, rn, cf, rtry, ver, stats,
    '', '', rtry, fr + du > 0, false, false, false, false, false, false, false
  }
end

-- The statistics of a subscription. What is changed in them is written with it.
local function stats_of(s)
  local c = s[STATS]
  if not c then
    c = struct and {struct.unpack(stats_layout, s[PACKED_STATS])} or s[PACKED_STATS]
    s[STATS] = c
  end
  return c
end

-- Notes that these deliveries were leased together, until the expiry (ms) unless that is extended.
local function claim(token, ids, expiry)
  token = text(token)
  variadic('SADD', prefix .. 'claims:' .. token, ids)
  call('ZADD', prefix .. 'leases', text(expiry), token)
end

-- Takes deliveries back from who leased them. A token is gone with its last one.
local function unclaim(token, ids)
  local key = prefix .. 'claims:' .. token
  wrote = true
  variadic('SREM', key, ids)
  if call('EXISTS', key) == 0 then call('ZREM', prefix .. 'leases', token) end
end

-- Which of its subscription a delivery is that has just been counted as ended. Nobody counts those of one that is gone.
local function ordinal_of(s)
  if s[GONE] == 1 then return '' end
  local c = stats_of(s)
  return text(c[OK] + c[FAIL] + c[CANC])
end

local function packed(s)
  local c = s[STATS]
  if c and struct then
    s[PACKED_STATS] = struct.pack(stats_layout, c[OK], c[FAIL], c[CANC], c[LSUM], c[LCNT], c[LAT], c[LOK], c[LST],
      #c[LRS], c[LRS], #c[LER], c[LER], #c[NS], c[NS])
  elseif c then
    s[PACKED_STATS] = c
  end
  if struct then return struct.pack(pack_layout, unpack(s, 1, 20)) end
  return cjson.encode({unpack(s, 1, 20)})
end

-- How many have ended of the subscriptions in a list, in which they stand from the first in such steps.
local function ends_of_all(list, first, step)
  local ends, ids, keys = {}, {}, {}
  for i = first, #list, step do
    local id = list[i]
    if not ends[id] then
      ends[id] = 0
      ids[#ids + 1] = id
      keys[#keys + 1] = prefix .. 'sub:' .. id
    end
  end
  for i, value in ipairs(gather('MGET', nil, keys)) do
    if value and struct then
      local ok, fail, canc = struct.unpack('<ddd', value, stats_at)
      ends[ids[i]] = ok + fail + canc
    elseif value then
      local c = stats_of(unpacked(value))
      ends[ids[i]] = c[OK] + c[FAIL] + c[CANC]
    end
  end
  return ends
end

-- Reads subscriptions into `touched`, false where the queue does not know one: all, or none where one cannot be read.
local function load(ids)
  local keys, missing, read = {}, {}, {}
  for _, id in ipairs(ids) do
    if touched[id] == nil and read[id] == nil then
      read[id] = false
      missing[#missing + 1] = id
      keys[#keys + 1] = prefix .. 'sub:' .. id
    end
  end
  if #keys == 0 then return end
  for i, text in ipairs(gather('MGET', nil, keys)) do
    if text then
      local s = unpacked(text)
      s[ID], s[KEY] = missing[i], keys[i]
      read[s[ID]] = s
    end
  end
  for id, s in pairs(read) do touched[id] = s end
end

-- Has flush write a subscription.
local function list(s)
  if s[LISTED] then return end
  s[LISTED] = true
  order[#order + 1] = s
end

-- One subscription, to be written, nil where the queue does not know it.
local function subscription(id)
  if touched[id] == nil then load({id}) end
  local s = touched[id] or nil
  if s then list(s) end
  return s
end

-- Forgets the seconds of the rate window that are over. A second counts until its last instant is `window` old. Seconds
-- that are yet to come, because Redis' clock went back, count as the present one.
local function roll(s, now)
  if s[RU] == 0 then return end
  local present, key = math.floor(now / 1000), prefix .. 'rate:' .. s[ID]
  if s[RH] > present then
    local used = s[RN]
    for _, n in ipairs(call('HVALS', key)) do used = used + tonumber(n) end
    if not dry then call('DEL', key) end
    s[RU], s[RH], s[RS], s[RN] = used, present, present, used
    return
  end
  if now < (s[RH] + 1) * 1000 + window then return end
  local oldest, used, over = s[RS], s[RN], {}
  if now >= (s[RS] + 1) * 1000 + window then oldest, used, s[RN] = nil, 0, 0 end
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    local second = tonumber(all[i])
    if now >= (second + 1) * 1000 + window then
      over[#over + 1] = all[i]
    else
      used = used + tonumber(all[i + 1])
      if not oldest or second < oldest then oldest = second end
    end
  end
  if not dry then variadic('HDEL', key, over) end
  s[RU], s[RH] = used, oldest or 0
end

-- Notes in `rate:<sub>` that n requests arrived in a second.
local function note(s, second, n)
  local key = prefix .. 'rate:' .. s[ID]
  if call('HINCRBY', key, text(second), text(n)) == n then call('PEXPIRE', key, window + 10000) end
end

-- Counts n requests that arrived at the given time (ms) into the rate window. Call roll before.
local function charge(s, arrived, n)
  local second = math.floor(arrived / 1000)
  if second < s[RS] then
    note(s, second, n)
  elseif second == s[RS] then
    s[RN] = s[RN] + n
  else
    if s[RN] > 0 then note(s, s[RS], s[RN]) end
    s[RS], s[RN] = second, n
  end
  if s[RU] == 0 or second < s[RH] then s[RH] = second end
  s[RU] = s[RU] + n
end

local function room(s)
  local cap = s[CAP]
  if s[CF] >= failing_after then cap = 1 end
  return math.min(cap - s[INF], s[RATE] - s[RU] - s[INF])
end

-- When the subscription may next be leased from, nil when it must not be in `ready`: it has nothing that waits, no
-- place, or may not run.
local function runnable(s, now)
  if s[GONE] == 1 or s[ACT] == 0 or s[PAU] == 1 or s[FR] + s[DU] == 0 then return nil end
  local cap = s[CAP]
  if s[CF] >= failing_after then cap = 1 end
  if s[INF] >= cap then return nil end
  local at = now
  if s[FR] == 0 then
    local first = call('ZRANGE', prefix .. 'due:' .. s[ID], 0, 0, 'WITHSCORES')
    if first[2] then at = math.max(now, tonumber(first[2])) end
  end
  roll(s, now)
  if s[RATE] - s[RU] - s[INF] <= 0 then
    if s[RU] == 0 then return nil end
    at = math.max(at, (s[RH] + 1) * 1000 + window)
  end
  return at
end

local added = {}   -- what this call adds to `totals`, by field

local function tally(field, n)
  added[field] = (added[field] or 0) + n
end

-- Writes what was tallied. Returns the version that it gave, if one was asked for.
local function write_totals(versioned)
  local names, list, version = {}, {}, nil
  if versioned then added.version = 1 end
  for field, n in pairs(added) do
    if n ~= 0 then names[#names + 1] = field end
  end
  if #names == 0 then return nil end
  for i, before in ipairs(call('HMGET', prefix .. 'totals', unpack(names))) do
    local field = names[i]
    local n = (before or 0) + added[field]
    if field == 'version' then version = n end
    list[2 * i - 1] = field
    list[2 * i] = text(n)
  end
  call('HSET', prefix .. 'totals', unpack(list))
  added = {}
  return version
end

-- Marks what the reflector must look at: `dirty`, by the version of the first change that it has not seen (so that one
-- that changes all the time has its turn too), and `urgent`, by that of the latest.
local function mark(version)
  local first, latest, score = {}, {}, text(version)
  for _, s in ipairs(dirty) do
    s[VER] = version
    if s[DRT] == 0 then
      s[DRT] = 1
      first[#first + 1] = score
      first[#first + 1] = s[ID]
    end
  end
  for i, s in ipairs(urgent) do
    latest[2 * i - 1] = score
    latest[2 * i] = s[ID]
  end
  variadic('ZADD', prefix .. 'dirty', first)
  variadic('ZADD', prefix .. 'urgent', latest)
end

-- Writes subscriptions back. One that is gone and has nothing left is forgotten after a while.
local function store(list)
  local written = {}
  for i, s in ipairs(list) do
    written[2 * i - 1] = s[KEY]
    written[2 * i] = packed(s)
  end
  variadic('MSET', nil, written)
  for _, s in ipairs(list) do
    if s[GONE] == 1 and s[FR] + s[DU] == 0 then call('PEXPIRE', s[KEY], gone_memory) end
  end
end

-- Writes totals, marks and every listed subscription, and puts it into `ready` or takes it out. Call it after all
-- changes, and before `ready` is looked at. A time in `ready` only moves ahead, lest every publish sent its subscription
-- to the end of the line; one that had its turn in this call (s[TURN]) begins anew. A time that is too early costs a look
-- at the subscription, no more.
local function flush(now)
  local ready_new, ready_ahead, ready_rem = {}, {}, {}
  for _, s in ipairs(order) do
    if s[RTRY] ~= s[RTRY_READ] then tally('retrying', s[RTRY] - s[RTRY_READ]) end
  end
  local version = write_totals(#dirty > 0)
  if version then mark(version) end
  for _, s in ipairs(order) do
    local at = runnable(s, now)
    s[LISTED], s[RTRY_READ] = false, s[RTRY]
    if at then
      local list = s[TURN] and ready_new or ready_ahead
      list[#list + 1] = text(at)
      list[#list + 1] = s[ID]
      if earliest < 0 or at < earliest then earliest = at end
    elseif s[LINED] then
      ready_rem[#ready_rem + 1] = s[ID]
    end
    s[LINED] = at ~= nil
  end
  store(order)
  variadic('ZREM', KEYS[1], ready_rem)
  variadic('ZADD', KEYS[1], ready_new)
  variadic('ZADD', KEYS[1], ready_ahead, 'LT')
  order, dirty, urgent = {}, {}, {}
end

-- The fields of a delivery's record, nil where there is none; attempts as a number, the rest as text.
local function parse(record)
  if not record then return nil end
  local sub, attempts, more, created, size, type, event =
    string.match(record, '^([^|]*)|(%d+)([^|]*)|(%d+)|(%d+)|([^|]*)|(.*)$')
  return sub, tonumber(attempts), created, size, event, type, more
end

-- Whether a delivery ends with its attempt, by what stands behind its attempts.
local function is_marked(more) return string.sub(more, -1) == 'c' end

-- All as text, attempts with what stands behind them.
local function record(sub, attempts, created, size, type, event)
  return sub .. '|' .. attempts .. '|' .. created .. '|' .. size .. '|' .. type .. '|' .. event
end

-- Reads the subscriptions of these records in one call, with their statistics, to be written. Nothing is changed where
-- one cannot be read.
local function load_owners(records)
  local ids = {}
  for _, r in ipairs(records) do
    if r then ids[#ids + 1] = string.match(r, '^[^|]*') end
  end
  load(ids)
  for _, id in ipairs(ids) do
    if touched[id] then stats_of(touched[id]) end
  end
  for _, id in ipairs(ids) do
    if touched[id] then list(touched[id]) end
  end
end

-- Whether the first of two ids of entries is the later one.
local function later(a, b)
  local ms, n = string.match(a, '^(%d+)-(%d+)$')
  local other_ms, other_n = string.match(b, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(n) > tonumber(other_n)
end

-- What this call ends. Strings and tables are what ends cost most, so nothing is made twice.
local over_ids, over_fields, over_tried = {}, {}, {}
local over_names, over_counts, over_sizes = {}, {}, {}   -- payload keys; by these, deliveries and the payload's size
local over_at

-- Notes that a delivery has ended, as which of its subscription ('' for unknown). attempts are as in the record, tried
-- tells whether there may be earlier ones than tries, the attempts as text.
local function over(now, ordinal, id, outcome, attempts, size, reason, ns, sub, type, event, tries, tried)
  over_at = over_at or '|' .. text(now) .. '|'
  local n = #over_ids + 1
  over_ids[n] = id
  over_fields[2 * n - 1] = ordinal .. '|' .. id .. over_at .. outcome .. '|' .. attempts .. '|' .. size .. '|' .. reason
    .. '|' .. ns .. '|' .. sub .. '|' .. type .. '|' .. event
  over_fields[2 * n] = tries
  if tried then over_tried[#over_tried + 1] = n end
  local count = over_counts[event]
  if count then
    over_counts[event] = count + 1
  else
    over_counts[event] = 1
    over_sizes[event] = size
    over_names[#over_names + 1] = event
  end
end

-- Appends what has ended to `ended`, a bounded number in each entry.
local function append()
  local first, bytes, last = 1, 0, 2 * #over_ids
  for i = 2, last, 2 do
    bytes = bytes + #over_fields[i] + 128
    if bytes > 65536 or i - first >= 127 or i == last then
      call('XADD', prefix .. 'ended', '*', unpack(over_fields, first, i))
      first, bytes = i + 1, 0
    end
  end
  over_ids, over_fields, over_tried, over_names, over_counts, over_sizes = {}, {}, {}, {}, {}, {}
end

-- Puts the attempts that a delivery kept while it was unfinished in front of its last one.
local function collect_tries()
  local keys, freed = {}, 0
  for i, n in ipairs(over_tried) do
    local key = prefix .. 'tries:' .. over_ids[n]
    local before = table.concat(call('LRANGE', key, 0, -1))
    over_fields[2 * n] = before .. over_fields[2 * n]
    keys[i] = key
    freed = freed + #before
  end
  variadic('DEL', nil, keys)
  if freed > 0 then tally('tries', -freed) end
end

-- Takes what has ended out of the queue into `ended`. A payload that no unfinished delivery needs any more is kept for
-- the history. Call it before flush.
local function finish()
  if #over_ids == 0 then return end
  variadic('HDEL', prefix .. 'deliveries', over_ids)
  local changed, idle = {}, 0
  for i, count in ipairs(gather('HMGET', prefix .. 'refs', over_names)) do
    local event = over_names[i]
    if count then
      count = count + over_counts[event] * (kept_one - 1)
      changed[#changed + 1] = event
      changed[#changed + 1] = text(count)
    end
    if not count or count % kept_one == 0 then idle = idle + over_sizes[event] end
  end
  variadic('HSET', prefix .. 'refs', changed)
  if #over_tried > 0 then collect_tries() end
  append()
  if idle > 0 then
    tally('bytes', -idle)
    tally('kept', idle)
  end
end

-- Changes how many entries and records need payloads that some need: deltas by payload key. What nobody needs goes.
-- Returns the bytes of what went.
local function hold(deltas, sizes)
  local names, set, clear, drop, freed = {}, {}, {}, {}, 0
  for event, delta in pairs(deltas) do
    if delta ~= 0 then names[#names + 1] = event end
  end
  for i, count in ipairs(gather('HMGET', prefix .. 'refs', names)) do
    local event, before = names[i], count
    count = tonumber(before or kept_one) + deltas[event] * kept_one
    if count > 1 and count ~= kept_one then
      set[#set + 1] = event
      set[#set + 1] = text(count)
    elseif before then
      clear[#clear + 1] = event
    end
    if count == 0 then
      drop[#drop + 1] = event
      freed = freed + sizes[event]
    end
  end
  variadic('HSET', prefix .. 'refs', set)
  variadic('HDEL', prefix .. 'refs', clear)
  variadic('HDEL', prefix .. 'payloads', drop)
  return freed
end

-- A delivery and its record without the attempts, from a field of `ended`; and from these, size, subscription, event; and
-- the ordinal.
local function ended_fields(field)
  local ordinal, id, head, size, sub, event =
    string.match(field, '^(%d*)|([^|]*)|(%d+|%a|[^|]*|(%d+)|[^|]*|[^|]*|([^|]*)|[^|]*|(.*))$')
  return id, head, size, sub, event, ordinal
end

-- Size, subscription and event of a record.
local function record_fields(value)
  return string.match(value, '^%d+|%a|[^|]*|(%d+)|[^|]*|[^|]*|([^|]*)|[^|]*|([^\n]*)')
end

local function bucket_of(id) return string.sub(id, 1, 10) end

-- Takes records out of the history, but for `hist:<sub>`. Returns how many bytes that freed, with those of payloads that
-- went.
local function forget(ids)
  local buckets, deltas, sizes, freed = {}, {}, {}, 0
  for _, id in ipairs(ids) do
    local bucket = bucket_of(id)
    local list = buckets[bucket]
    if list then list[#list + 1] = id else buckets[bucket] = {id} end
  end
  for bucket, list in pairs(buckets) do
    local key = prefix .. 'past:' .. bucket
    for _, value in ipairs(gather('HMGET', key, list)) do
      if value then
        local size, _, event = record_fields(value)
        deltas[event] = (deltas[event] or 0) - 1
        sizes[event] = size
        freed = freed + #value
      end
    end
    variadic('HDEL', key, list)
    if call('EXISTS', key) == 0 then call('ZREM', prefix .. 'pasts', bucket) end
  end
  return freed + hold(deltas, sizes)
end
