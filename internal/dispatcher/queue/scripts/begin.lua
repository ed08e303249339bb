-- begin: starts an operation whose deliveries are listed in the shards.
-- KEYS  [1] ready, of the first shard
-- ARGV  [1] now  [2] operation  [3] most operations at once  [4] ms for which it is remembered  [5] how many deliveries
--       it has  [6] what it does, kept as it came
-- Returns {1, when it began} or {0} too many are under way.
-- The same call again changes nothing. One without deliveries is finished at once.
local now, key = clock(), prefix .. 'op:' .. ARGV[2]
local began = call('HGET', key, 'started')
if began then return {1, tonumber(began)} end
if ARGV[5] ~= '0' and call('ZCARD', prefix .. 'ops') >= tonumber(ARGV[3]) then return {0} end
call('HSET', key, 'what', ARGV[6], 'matched', ARGV[5], 'started', text(now))
call('PEXPIRE', key, ARGV[4])
if ARGV[5] == '0' then
  call('HSET', key, 'finished', text(now))
else
  call('ZADD', prefix .. 'ops', text(now), ARGV[2])
end
return {1, now}
