-- copied: lets go of entries that were copied elsewhere, the oldest ones.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] the last entry that was copied  [3] most entries in this step
-- Returns {entries gone in this step, 1 where the last one is still to go}.
-- Never lets go of what is not in the history yet. Repeating it does no harm.
whatever_the_memory()
local ended, filed = prefix .. 'ended', call('GET', prefix .. 'filed')
if not filed then return {0, 0} end
local last, most = later(ARGV[2], filed) and filed or ARGV[2], tonumber(ARGV[3])
local deltas, sizes, gone, freed = {}, {}, {}, 0
for n, entry in ipairs(call('XRANGE', ended, '-', last, 'COUNT', most)) do
  local values = entry[2]
  for i = 1, #values, 2 do
    local _, record, size, _, event = ended_fields(values[i])
    deltas[event] = (deltas[event] or 0) - 1
    sizes[event] = size
    freed = freed + #record + #values[i + 1] + size
  end
  gone[n] = entry[1]
end
variadic('XDEL', ended, gone)
local dropped = hold(deltas, sizes)
if dropped > 0 then call('HINCRBY', prefix .. 'totals', 'kept', -dropped) end
if freed > 0 then call('HINCRBY', prefix .. 'totals', 'outbox', -freed) end
return {#gone, #gone == most and 1 or 0}
