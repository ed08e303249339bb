-- operate: does the next delivery of an operation, once, and counts it in the same step. It stands behind the script
-- that changes one delivery (retry or end), which is a function here: change.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] operation  [3] states in which a delivery is changed: p waits for its first attempt, r for another,
--       s, f, c ended so  [4] greatest answer of change that means done  [5] the delivery whose turn it must be
--       [6] its state where the shard has it neither in the queue nor in the history, '' for none  [7...] what change takes
--       behind the delivery
-- Returns {1} done, {0} skipped: it is in another state by now, or change could not, {-1} nothing is left in the shard,
-- {-2} it is not this one's turn: somebody else has done it, or an earlier call whose answer got lost.
-- Takes a delivery from the list with the change itself: whoever dies leaves it either untouched or done and counted,
-- and several may work at once. Where Redis refuses the change for want of memory, the delivery stays in the list.
local list = prefix .. 'op:' .. ARGV[2] .. ':left'
local id = call('LINDEX', list, 0)
if not id then return {-1} end
if id ~= ARGV[5] then return {-2} end

local function state()
  local _, attempts = parse(call('HGET', prefix .. 'deliveries', id))
  if attempts then return attempts > 0 and 'r' or 'p' end
  local past = call('HGET', prefix .. 'past:' .. bucket_of(id), id)
  return past and string.match(past, '^%d+|(%a)')
end

local at, done = state() or ARGV[6], 0
if at ~= '' and string.find(ARGV[3], at, 1, true) then
  local answer = change({ARGV[1], id, unpack(ARGV, 7)})
  if answer[1] <= tonumber(ARGV[4]) then done = 1 end
end
call('LPOP', list)
call('HINCRBY', prefix .. 'op:' .. ARGV[2] .. ':counts', done == 1 and 'done' or 'skipped', 1)
return {done}
