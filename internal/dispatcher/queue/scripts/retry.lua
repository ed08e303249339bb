-- retry: somebody wants a delivery to be tried again, at once and with a fresh retry budget.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] delivery  [3] delivery to be, where this one has succeeded  [4] most unfinished deliveries in the
--       shard  [5] most payload bytes in the shard  [6] ms for which this call is remembered by [3], 0 for not at all
-- Returns {0, delivery} queued, {1} in flight just now, {2} there is none, {3} it cannot be queued: its subscription is
--       gone or has no room, or the shard has none, or the payload is gone.
-- One that waits keeps its place or comes at once; one that failed or was cancelled comes back under its id, with its
-- attempts; one that succeeded is repeated under the other id. The same call again, while it is remembered, changes
-- nothing more, whatever became of the delivery meanwhile.
local now, id = clock(), ARGV[2]
local deliveries, payloads = prefix .. 'deliveries', prefix .. 'payloads'
local memory = prefix .. 'retried:' .. ARGV[3]
if ARGV[6] ~= '0' then
  local before = call('GET', memory)
  if before then return {0, before} end
end

local function queued(delivery)
  if ARGV[6] ~= '0' then call('SET', memory, delivery, 'PX', ARGV[6]) end
  return {0, delivery}
end

local function base_of(attempts, more)
  local _, rounds, replay = string.match(more, '^:(%d*):(%d*):([^:]*)')
  return ':' .. attempts .. ':' .. (rounds or '0') .. ':' .. (replay or '') .. ':'
end

local waits = call('HGET', deliveries, id)
if waits then
  local sub, attempts, more, created, size, type, event =
    string.match(waits, '^([^|]*)|(%d+)([^|]*)|(%d+)|(%d+)|([^|]*)|(.*)$')
  local s = subscription(sub)
  if not s or s[GONE] == 1 then return {3} end
  if call('ZSCORE', prefix .. 'due:' .. sub, id) then
    call('ZADD', prefix .. 'due:' .. sub, now, id)
    call('HSET', deliveries, id, record(sub, attempts .. base_of(attempts, more), created, size, type, event))
    flush(now)
    return queued(id)
  end
  if call('LPOS', prefix .. 'fresh:' .. sub, id) then return queued(id) end
  return {1}
end

local key = prefix .. 'past:' .. bucket_of(id)
local value = call('HGET', key, id)
if not value then return {2} end
local outcome, attempts, more, size, sub, type, event, tries =
  string.match(value, '^%d+|(%a)|(%d*)([^|]*)|(%d+)|[^|]*|[^|]*|([^|]*)|([^|]*)|([^\n]*)\n(.*)$')
local s = subscription(sub)
local bytes = tonumber(call('HGET', prefix .. 'totals', 'bytes') or 0)
local refs = tonumber(call('HGET', prefix .. 'refs', event) or kept_one)
local idle = refs % kept_one == 0 and tonumber(size) or 0
if not s or s[GONE] == 1 or s[FR] + s[DU] + s[INF] >= s[MAX] or call('HLEN', deliveries) >= tonumber(ARGV[4])
  or bytes + idle > tonumber(ARGV[5]) or call('HEXISTS', payloads, event) == 0 then
  return {3}
end

local kept = -idle
if outcome == 's' then
  more = ':0:0:' .. id .. ':'
  id, attempts = ARGV[3], '0'
  refs = refs + 1
else
  local rounds, replay = string.match(more, '^:%d*:(%d*):([^:]*)')
  more = ':' .. attempts .. ':' .. text((rounds or 0) + 1) .. ':' .. (replay or '') .. ':'
  refs = refs + 1 - kept_one
  kept = kept - #value
  call('HDEL', key, id)
  if call('EXISTS', key) == 0 then call('ZREM', prefix .. 'pasts', bucket_of(id)) end
  call('LREM', prefix .. 'hist:' .. sub, 1, id)
  if #tries > 0 and attempts ~= '0' then
    call('RPUSH', prefix .. 'tries:' .. id, tries)
    tally('tries', #tries)
  end
end
call('HSET', deliveries, id, record(sub, attempts .. more, text(now), size, type, event))
call('HSET', prefix .. 'refs', event, text(refs))
tally('bytes', idle)
tally('kept', kept)
if attempts == '0' then
  call('RPUSH', prefix .. 'fresh:' .. sub, id)
  s[FR] = s[FR] + 1
else
  call('ZADD', prefix .. 'due:' .. sub, now, id)
  s[DU], s[RTRY] = s[DU] + 1, s[RTRY] + 1
end
dirty[1] = s
flush(now)
return queued(id)
