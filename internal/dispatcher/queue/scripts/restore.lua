-- restore: somebody wants a delivery to be tried again that left the history: puts it back there, and retries it.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] delivery  [3] delivery to be, where this one has succeeded  [4] most unfinished deliveries in the
--       shard  [5] most payload bytes in the shard  [6] ms for which this call is remembered  [7] record, as the history
--       had it  [8] payload's key, as in the record: one that this call alone has  [9] payload
-- Returns what retry does, whose function `retry` stands in front. Where it refuses, nothing is left.
-- Never touches a delivery that is in the queue or in the history: retry then decides. The same call again changes
-- nothing more.
local id, value, event, payload = ARGV[2], ARGV[7], ARGV[8], ARGV[9]
local past = prefix .. 'past:' .. bucket_of(id)
if call('HEXISTS', prefix .. 'deliveries', id) == 1 or call('HEXISTS', past, id) == 1
  or call('HEXISTS', prefix .. 'payloads', event) == 1 or call('EXISTS', prefix .. 'retried:' .. ARGV[3]) == 1 then
  return retry(ARGV)
end
local size, sub = record_fields(value)
call('HSET', prefix .. 'payloads', event, payload)
call('HSET', prefix .. 'refs', event, text(kept_one))
call('HSET', past, id, value)
call('ZADD', prefix .. 'pasts', 0, bucket_of(id))
call('RPUSH', prefix .. 'hist:' .. sub, id)
call('HINCRBY', prefix .. 'totals', 'kept', text(#value + size))
local answer = retry(ARGV)
if answer[1] ~= 0 then
  call('LREM', prefix .. 'hist:' .. sub, -1, id)
  call('HINCRBY', prefix .. 'totals', 'kept', text(-forget({id})))
end
return answer
