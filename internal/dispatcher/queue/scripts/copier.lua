-- copier: takes the right to copy a shard's outbox, keeps it, or gives it back.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] dispatcher  [3] ms for which it holds, 0 to give it back
-- Returns {1} the caller has it (or has given it back), {0} another has it.
-- Only spares work: whoever copies what another has copied changes nothing.
whatever_the_memory()
local copier = prefix .. 'copier'
local holder = call('GET', copier)
if holder and holder ~= ARGV[2] then return {0} end
if ARGV[3] == '0' then
  call('DEL', copier)
else
  call('SET', copier, ARGV[2], 'PX', ARGV[3])
end
return {1}
