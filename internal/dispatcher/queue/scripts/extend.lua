-- extend, a part of trip: prolongs leases of which attempts are still under way.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] lease (ms)  [3...] tokens
-- Returns 1 prolonged or 0 lost for each. Never brings a lost lease back.
local expiry = clock() + ARGV[2]
whatever_the_memory()
local tokens, answer, args = {}, {}, {}
for i = 3, #ARGV do tokens[i - 2] = ARGV[i] end   -- may be more than unpack takes
for n, score in ipairs(gather('ZMSCORE', prefix .. 'leases', tokens)) do
  answer[n] = score and 1 or 0
  if score then
    args[#args + 1] = expiry
    args[#args + 1] = tokens[n]
  end
end
variadic('ZADD', prefix .. 'leases', args)
return answer
