-- extend: prolongs leases whose attempts are still under way.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] lease (ms), then token, delivery for each
-- Returns 1 prolonged or 0 lost for each. Never brings a lost lease back.
local now = clock()
whatever_the_memory()
local members = {}
for i = 3, #ARGV, 2 do members[#members + 1] = ARGV[i] .. ':' .. ARGV[i + 1] end
local answer, args = {}, {}
for n, score in ipairs(gather('ZMSCORE', prefix .. 'leases', members)) do
  answer[n] = score and 1 or 0
  if score then
    args[#args + 1] = now + tonumber(ARGV[2])
    args[#args + 1] = members[n]
  end
end
variadic('ZADD', prefix .. 'leases', args)
return answer
