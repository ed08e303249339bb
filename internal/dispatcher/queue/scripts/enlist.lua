-- enlist: writes down, before an operation begins, some of the deliveries that it is to change in this shard.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] operation  [3] how many are written down already  [4] ms for which the list is kept  [5] ms for which
--       its counts are  [6...] deliveries, 4,000 at most
-- Returns {}. The same call again changes nothing but the times.
local list, counts = prefix .. 'op:' .. ARGV[2] .. ':left', prefix .. 'op:' .. ARGV[2] .. ':counts'
if call('LLEN', list) == tonumber(ARGV[3]) then
  call('RPUSH', list, unpack(ARGV, 6))
  call('HSET', counts, 'done', 0, 'skipped', 0)
end
call('PEXPIRE', list, ARGV[4])
call('PEXPIRE', counts, ARGV[5])
return {}
