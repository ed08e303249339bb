-- trip: all that a dispatcher has for the shard at a time: publish, settle, extend and lease, in this order, so that what
-- was just published or freed can be leased at once. These are functions here, each with ARGV of its own.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] to [5] for each part how many arguments it has behind now, 0 where it is left out  [6...] those
-- Returns what each part returns, 0 for one that was left out, the error as text where settle fails: what publish did must
--       be flushed all the same.
-- Repeating it queues and settles nothing twice; it leases what is due then.
local parts, answers, at = {publish, settle, extend, lease}, {0, 0, 0, 0}, 5

local function run(n)
  local count = tonumber(ARGV[n + 1])
  if count == 0 then return end
  local args = {ARGV[1]}
  for i = 1, count do args[i + 1] = ARGV[at + i] end
  at = at + count
  answers[n] = parts[n](args)
end

run(1)
local ok, failure = pcall(run, 2)
if not ok then answers[2] = type(failure) == 'table' and failure.err or tostring(failure) end
flush(clock())
run(3)
run(4)   -- which looks at what the others wrote
return answers
