-- ended: an operation has no delivery left in any shard.
-- KEYS  [1] ready, of the first shard
-- ARGV  [1] now  [2] operation  [3] ms for which it is remembered from now on
-- Returns {}. The same call again changes nothing but how long it is remembered.
whatever_the_memory()
local key = prefix .. 'op:' .. ARGV[2]
call('ZREM', prefix .. 'ops', ARGV[2])
if call('EXISTS', key) == 1 then
  call('HSETNX', key, 'finished', text(clock()))
  call('PEXPIRE', key, ARGV[3])
end
return {}
