-- extend, a part of trip: prolongs leases of which attempts are still under way.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] lease (ms)  [3...] tokens
-- Returns 1 prolonged or 0 lost for each. Never brings a lost lease back.
local expiry = clock() + ARGV[2]
whatever_the_memory()
local answer, args = {}, {}
for n, score in ipairs(gather('ZMSCORE', prefix .. 'leases', {unpack(ARGV, 3)})) do
  answer[n] = score and 1 or 0
  if score then
    args[#args + 1] = expiry
    args[#args + 1] = ARGV[n + 2]
  end
end
variadic('ZADD', prefix .. 'leases', args)
return answer
