-- trip: all that a dispatcher has for the shard at a time: publish, settle, extend and lease, in this order, so that what
-- was just published or freed can be leased at once. These are functions here, each with ARGV of its own.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] to [5] for each part how many arguments it has behind now, 0 where it is left out  [6...] those
-- Returns what each part returns, 0 for one that was left out, and the error as text for one that failed although others
--       did their work, of which their callers must hear. Where nothing was done the error is raised.
-- Repeating it queues and settles nothing twice; it leases what is due then.
local parts, answers, at, done = {publish, settle, extend, lease}, {0, 0, 0, 0}, 5, false

local function run(n)
  local count = tonumber(ARGV[n + 1])
  if count == 0 then return true end
  local args = {ARGV[1]}
  for i = 1, count do args[i + 1] = ARGV[at + i] end
  at = at + count
  local ok, answer = pcall(parts[n], args)
  if ok then
    answers[n] = answer
    done = done or type(answer) == 'table'
  else
    answers[n] = type(answer) == 'table' and answer.err or tostring(answer)
  end
  return ok
end

if not run(1) then   -- what it began must not be written with the rest
  touched, order, dirty, urgent, added = {}, {}, {}, {}, {}
  over_ids, over_fields, over_tried, over_names, over_counts, over_sizes = {}, {}, {}, {}, {}, {}
end
run(2)
flush(clock())   -- before the others, which must not take it along when they fail
run(3)
if not run(4) and not done then   -- lease looks at what the others wrote
  return {err = answers[4]}   -- as Redis said it, READONLY in front, by which clients know that a master has gone
end
return answers
