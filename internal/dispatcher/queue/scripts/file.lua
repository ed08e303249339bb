-- file: brings deliveries that have ended into the history, one bounded step, and keeps it within its bounds.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] records, beyond which no further entry of `ended` is read  [3] most records of a subscription  [4] ms for which a record is kept
--       after its delivery was made  [5] most bytes of the history  [6] 1 where entries stay until they are copied
--       [7] most bytes of entries that stay  [8] most records to forget for want of room
-- Returns {records filed, entries left to file, 1 where the history is beyond its bounds still}.
-- What was made before the time is not filed, and goes with its bucket; nor is one behind which its subscription's most
-- have ended since, so that a busy one costs little. Of a subscription the first that were filed go first, of all those
-- that were made first, a bucket's in no order. Up to an eighth more than its most may be kept.
local now = clock()
whatever_the_memory()
local most, per_sub, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local copying, most_outbox, most_forgotten = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
local ended, filed = prefix .. 'ended', call('GET', prefix .. 'filed')
local deltas, sizes = {}, {}      -- of references, by payload
local kept, outbox, lost = 0, 0, 0

-- The beginning of every delivery's id that was made at the time (ms): a UUID of version 7 begins with it.
local function made_at(ms)
  ms = math.max(ms, 0)
  local high = math.floor(ms / 65536)
  return string.format('%08x-%04x', high, ms - high * 65536)
end
local oldest = made_at(now - tonumber(ARGV[4]))

local function refer(event, size, delta)
  deltas[event] = (deltas[event] or 0) + delta
  sizes[event] = size
end

-- 1. What has ended since.
local buckets, subs, filed_now = {}, {}, 0
local function add(lists, name, a, b)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1] = a
  if b then list[#list + 1] = b end
end
local function file(id, head, size, sub, event, tries)
  local value = head .. '\n' .. tries
  add(buckets, bucket_of(id), id, value)
  add(subs, sub, id)
  kept = kept + #value
  if copying then refer(event, size, 1) end
  filed_now = filed_now + 1
end

-- Records that have to be looked at, one after another: id, head, size, sub, event, ordinal, tries.
local records, done, left, from, few = {}, {}, true, filed and '(' .. filed or '-', math.min(4, most)
while left and #records < 7 * most do
  local entries = call('XRANGE', ended, from, '+', 'COUNT', few)
  for _, entry in ipairs(entries) do
    local values = entry[2]
    for i = 1, #values, 2 do
      local id, head, size, sub, event, ordinal = ended_fields(values[i])
      local n = #records
      records[n + 1], records[n + 2], records[n + 3], records[n + 4] = id, head, size, sub
      records[n + 5], records[n + 6], records[n + 7] = event, ordinal, values[i + 1]
    end
    done[#done + 1] = entry[1]
    from = '(' .. entry[1]
  end
  left = #entries == few
end
local ends = ends_of_all(records, 4, 7)
for i = 1, #records, 7 do
  local id, size, sub, event, tries = records[i], records[i + 2], records[i + 3], records[i + 4], records[i + 6]
  if copying then outbox = outbox + #records[i + 1] + #tries + size end
  local ordinal = tonumber(records[i + 5])
  if id >= oldest and (not ordinal or ends[sub] - ordinal < per_sub) then
    file(id, records[i + 1], size, sub, event, tries)
  elseif not copying then
    refer(event, size, -1)
  end
end
for bucket, list in pairs(buckets) do
  variadic('HSET', prefix .. 'past:' .. bucket, list)
  call('ZADD', prefix .. 'pasts', 0, bucket)
end
if copying then
  if #done > 0 then call('SET', prefix .. 'filed', done[#done]) end
else
  variadic('XDEL', ended, done)
end

-- 2. Entries that stay too long: nobody copies any more, or not fast enough. More of them than are filed in a step.
local waiting = outbox + tonumber(call('HGET', prefix .. 'totals', 'outbox') or 0)
if filed and (not copying or waiting > most_outbox) then
  local gone, dropped, rest = {}, 0, waiting
  local function drop(values)
    for i = 1, #values, 2 do
      local _, head, size, _, event = ended_fields(values[i])
      refer(event, size, -1)
      rest = rest - #head - #values[i + 1] - size
      dropped = dropped + 1
    end
  end
  local start, found = '-', few
  while found == few and dropped < 2 * most and not (copying and rest <= most_outbox) do
    local entries = call('XRANGE', ended, start, filed, 'COUNT', few)
    for _, entry in ipairs(entries) do
      if copying and rest <= most_outbox then break end
      drop(entry[2])
      gone[#gone + 1] = entry[1]
      start = '(' .. entry[1]
    end
    found = #entries
  end
  variadic('XDEL', ended, gone)
  outbox = outbox + rest - waiting
  if copying then lost = dropped end
  if #gone == 0 and not copying then call('DEL', prefix .. 'filed') end
end
kept = kept - hold(deltas, sizes)

-- 3. What is beyond the bounds.
local surplus, slack = {}, math.floor(per_sub / 8)   -- an eighth more, so that several are forgotten in one go
for sub, list in pairs(subs) do
  local key, n = prefix .. 'hist:' .. sub, 0
  for i = 1, #list, 4000 do n = call('RPUSH', key, unpack(list, i, math.min(i + 3999, #list))) end
  if n > per_sub + slack then
    for _, id in ipairs(call('LPOP', key, n - per_sub)) do surplus[#surplus + 1] = id end
  end
  call('PEXPIRE', key, ARGV[4])   -- then whatever is in it has left the history
end
kept = kept - forget(surplus)

local totals = call('HMGET', prefix .. 'totals', 'kept', 'outbox')
local room = most_bytes + (totals[2] or 0) + outbox - (totals[1] or 0) - kept
local forgotten, more = 0, false
while true do
  local bucket = call('ZRANGE', prefix .. 'pasts', 0, 0)[1]
  if not bucket or (room >= 0 and bucket >= bucket_of(oldest)) then break end
  more = forgotten >= most_forgotten
  if more then break end
  local ids = call('HRANDFIELD', prefix .. 'past:' .. bucket, 64)
  local freed = forget(ids)
  kept, room, forgotten = kept - freed, room + freed, forgotten + math.max(#ids, 1)
end
for field, n in pairs({kept = kept, outbox = outbox, lost = lost}) do
  if n ~= 0 then call('HINCRBY', prefix .. 'totals', field, n) end
end
return {filed_now, left and call('XLEN', ended) or 0, more and 1 or 0}
