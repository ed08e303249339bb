-- configure: tells the shard a subscription's limits and whether it may run.
-- KEYS  [1] ready
-- ARGV  [1] now, then for each: sub, generation, requests a minute, places in flight, backlog bound, active, paused (1/0)
-- Returns {earliest (ms, -1 none), for each 1 changed, 0 the same, 2 refused: a newer generation is known, or it is gone}.
-- Never lets an older generation undo a newer one, never brings a cancelled subscription back.
local now = clock()
whatever_the_memory()
local answer, names = {-1}, {}
for i = 2, #ARGV, 7 do
  local id = ARGV[i]
  local key = prefix .. 'sub:' .. id
  local old = call('HMGET', key, 'gen', 'rate', 'cap', 'max', 'act', 'pau', 'gone')
  local code, same = 1, old[1] and true
  for f = 1, 6 do
    if old[f] ~= ARGV[i + f] then same = false end
  end
  if old[7] == '1' or (old[1] and tonumber(old[1]) > tonumber(ARGV[i + 1])) then
    code = 2
  elseif same then
    code = 0
  else
    call('HSET', key, 'gen', ARGV[i + 1], 'rate', ARGV[i + 2], 'cap', ARGV[i + 3], 'max', ARGV[i + 4],
      'act', ARGV[i + 5], 'pau', ARGV[i + 6])
    names[#names + 1] = id
  end
  answer[#answer + 1] = code
end
variadic('SADD', prefix .. 'subs', names)
for _, id in ipairs(names) do subscription(id) end
flush(now)
answer[1] = earliest
return answer
