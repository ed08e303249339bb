-- Shared by all scripts; put in front of each before it is loaded.
--
-- KEYS[1] is the shard's `ready` key. It routes the call to the node that holds the shard; every other key shares its
-- prefix, hence its hash tag, hence its slot.
-- ARGV[1] is the time in ms, or '' for Redis' own clock (always '' outside tests: one clock for all dispatchers).
--
-- A delivery's record: sub|attempts|created|size|event (attempts made, ms, bytes of the payload, key of the payload:
-- the event's id, followed by #ms where the publisher chose it and may choose it again after a day).
-- A payload: type, a newline, body. `refs` counts its unfinished deliveries; one that is not there has one.
-- A leased delivery is the member token:delivery of `leases`, scored by its expiry.
-- A subscription's hash:
--   gen rate cap max act pau   what configure set: generation, requests a minute, places, backlog bound, active, paused
--   fr du inf                  waiting in fresh, waiting in due, in flight
--   ru rh                      requests in the rate window but not in flight, and the oldest second that has one
--   cf                         failed attempts since the last success
--   ok fail canc rtry          finished by outcome; unfinished ones that failed at least once
--   lsum lcnt lat lok lst lrs ler full   latency sum (ms) and count, times (ms) of the last attempt and success, its
--                              status, reason and error; 1 while the latest publish found the backlog full
--   ver                        grows with every change of the counters, over all subscriptions of the shard
--   gone                       1 once cancelled for good: takes nothing, its last leases end as they end
local prefix = string.sub(KEYS[1], 1, -6)
local call = redis.call

local window = 60000      -- ms in which at most `rate` requests start
local failing_after = 3   -- failed attempts in a row after which one place in flight must do

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A full Redis (maxmemory, noeviction) refuses what may need memory only as the first write of a script. A script that
-- must work all the same begins with this write, which changes nothing.
local function whatever_the_memory()
  call('ZREM', prefix .. 'leases', '')
end

-- Calls a variadic command in pieces that Lua's stack holds, each with the option in front. Pieces are of even length.
local function variadic(command, key, args, option)
  local n = #args
  for i = 1, n, 4000 do
    local last = math.min(i + 3999, n)
    if option then
      call(command, key, option, unpack(args, i, last))
    else
      call(command, key, unpack(args, i, last))
    end
  end
end

-- The same for reads: one list with an answer for each argument.
local function gather(command, key, args)
  local n = #args
  if n == 0 then return {} end
  if n <= 4000 then return call(command, key, unpack(args)) end
  local all = {}
  for i = 1, n, 4000 do
    for _, v in ipairs(call(command, key, unpack(args, i, math.min(i + 3999, n)))) do all[#all + 1] = v end
  end
  return all
end

local touched = {}      -- subscriptions of this call by id
local order = {}        -- and in the order of their first touch
local dirty, urgent = {}, {}   -- of these, whose counters, and whose health may have changed
local dry = false       -- nothing may be written
local earliest = -1     -- the earliest score that this call put into `ready`

-- What subscription() reads. A script may append fields before its first call; their values are s.more[1...].
local fields = {'gen', 'rate', 'cap', 'max', 'act', 'pau', 'fr', 'du', 'inf', 'ru', 'rh', 'cf', 'rtry', 'gone'}
local own = #fields

-- The subscription's state, nil where the queue does not know it.
local function subscription(id)
  local s = touched[id]
  if s ~= nil then return s or nil end
  local v = call('HMGET', prefix .. 'sub:' .. id, unpack(fields))
  if not v[1] then
    touched[id] = false
    return nil
  end
  s = {
    id = id, gen = tonumber(v[1]), rate = tonumber(v[2]), cap = tonumber(v[3]), max = tonumber(v[4]),
    act = v[5] == '1', pau = v[6] == '1', fr = tonumber(v[7]) or 0, du = tonumber(v[8]) or 0,
    inf = tonumber(v[9]) or 0, ru = tonumber(v[10]) or 0, rh = tonumber(v[11]) or 0, cf = tonumber(v[12]) or 0,
    rtry = tonumber(v[13]) or 0, gone = v[14] == '1', set = {}, more = {}
  }
  for i = own + 1, #fields do s.more[i - own] = v[i] end
  touched[id] = s
  order[#order + 1] = s
  return s
end

local function set(s, field, value)
  s.set[#s.set + 1] = field
  s.set[#s.set + 1] = value
end

-- Forgets the seconds of the rate window that are over. A second counts until its last instant is `window` old.
local function roll(s, now)
  if s.ru == 0 or now < (s.rh + 1) * 1000 + window then return end
  local key, oldest, used, over = prefix .. 'rate:' .. s.id, nil, 0, {}
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
  s.ru, s.rh = used, oldest or 0
  s.rolled = true
end

-- Counts n requests that were sent at the given time (ms) into the rate window.
local function charge(s, sent, n)
  local second, key = math.floor(sent / 1000), prefix .. 'rate:' .. s.id
  if call('HINCRBY', key, second, n) == n then
    call('PEXPIRE', key, window + 10000)
  end
  if s.ru == 0 or second < s.rh then s.rh = second end
  s.ru = s.ru + n
  s.rolled = true
end

local function room(s)
  local cap = s.cap
  if s.cf >= failing_after then cap = 1 end
  return math.min(cap - s.inf, s.rate - s.ru - s.inf)
end

-- When the subscription may next be leased from, nil when it must not be in `ready`: it has nothing that waits, no
-- place, or may not run.
local function runnable(s, now)
  if s.gone or not s.act or s.pau or s.fr + s.du == 0 then return nil end
  local cap = s.cap
  if s.cf >= failing_after then cap = 1 end
  if s.inf >= cap then return nil end
  local at = now
  if s.fr == 0 then
    local first = call('ZRANGE', prefix .. 'due:' .. s.id, 0, 0, 'WITHSCORES')
    if first[2] then at = math.max(now, tonumber(first[2])) end
  end
  roll(s, now)
  if s.rate - s.ru - s.inf <= 0 then
    if s.ru == 0 then return nil end
    at = math.max(at, (s.rh + 1) * 1000 + window)
  end
  return at
end

-- Writes every touched subscription back and puts it into `ready` or takes it out. Call it once, after all changes.
-- A time in `ready` only moves ahead, lest every publish sent its subscription to the end of the line; one that had its
-- turn in this call (s.turn) begins anew. A time that is too early costs a look at the subscription, no more.
local function flush(now)
  local ready_new, ready_ahead, ready_rem = {}, {}, {}
  for _, s in ipairs(order) do
    local at = runnable(s, now)
    if at then
      local list = s.turn and ready_new or ready_ahead
      list[#list + 1] = at
      list[#list + 1] = s.id
      if earliest < 0 or at < earliest then earliest = at end
    else
      ready_rem[#ready_rem + 1] = s.id
    end
    local v = s.set
    v[#v + 1] = 'fr'; v[#v + 1] = s.fr
    v[#v + 1] = 'du'; v[#v + 1] = s.du
    v[#v + 1] = 'inf'; v[#v + 1] = s.inf
    if s.rolled then
      v[#v + 1] = 'ru'; v[#v + 1] = s.ru
      v[#v + 1] = 'rh'; v[#v + 1] = s.rh
    end
    call('HSET', prefix .. 'sub:' .. s.id, unpack(v))
  end
  variadic('ZREM', KEYS[1], ready_rem)
  variadic('ZADD', KEYS[1], ready_new)
  variadic('ZADD', KEYS[1], ready_ahead, 'LT')
end

-- Marks what the reflector must look at: `dirty`, by the version of the first change that it has not seen (so that one
-- that changes all the time has its turn too), and `urgent`, by that of the latest. Call it before flush.
local function mark()
  if #dirty == 0 then return end
  local version = call('HINCRBY', prefix .. 'totals', 'version', 1)
  local first, latest = {}, {}
  for i, s in ipairs(dirty) do
    set(s, 'ver', version)
    first[2 * i - 1] = version
    first[2 * i] = s.id
  end
  for i, s in ipairs(urgent) do
    latest[2 * i - 1] = version
    latest[2 * i] = s.id
  end
  variadic('ZADD', prefix .. 'dirty', first, 'NX')
  variadic('ZADD', prefix .. 'urgent', latest)
end

-- The fields of a delivery's record, nil where there is none.
local function parse(record)
  if not record then return nil end
  local sub, attempts, created, size, event = string.match(record, '^([^|]*)|(%d+)|(%d+)|(%d+)|(.*)$')
  return sub, tonumber(attempts), created, tonumber(size), event
end

local function record(sub, attempts, created, size, event)
  return table.concat({sub, attempts, created, size, event}, '|')
end

-- Removes finished deliveries and drops their references to the payloads, which go with their last one.
-- ids: list of delivery ids; events: event id -> how many of them; sizes: event id -> bytes of its payload.
local function finish(ids, events, sizes)
  if #ids == 0 then return end
  variadic('HDEL', prefix .. 'deliveries', ids)
  local names = {}
  for event in pairs(events) do names[#names + 1] = event end
  table.sort(names)
  local refs, keep, drop, unref, bytes = gather('HMGET', prefix .. 'refs', names), {}, {}, {}, 0
  for i, event in ipairs(names) do
    local left = (tonumber(refs[i] or 1)) - events[event]
    if left > 0 then
      keep[#keep + 1] = event
      keep[#keep + 1] = left
    else
      drop[#drop + 1] = event
      bytes = bytes + sizes[event]
      if refs[i] then unref[#unref + 1] = event end
    end
  end
  variadic('HSET', prefix .. 'refs', keep)
  variadic('HDEL', prefix .. 'refs', unref)
  variadic('HDEL', prefix .. 'payloads', drop)
  if bytes > 0 then call('HINCRBY', prefix .. 'totals', 'bytes', -bytes) end
end
