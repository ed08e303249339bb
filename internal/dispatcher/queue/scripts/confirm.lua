-- confirm: looks whether publish calls are all here, and writes, so that the WAIT behind it on the same connection waits
-- for them: it waits for the connection's own latest write and what came before that.
-- KEYS  [1] ready, as with every script; this one goes without lib.lua
-- ARGV  [1] caller  [2] first call  [3] last call, as publish numbers them; both 0 to ask whether the WAIT would succeed
--       [4] ms for which the caller's last call is remembered
-- Returns 1, or 0 where not all are certain to be here: another server may have taken over that had not received them.
-- Never says 1 of a call that this server, or the one whose data it has, did not execute.
local prefix = string.sub(KEYS[1], 1, -6)
local marker = prefix .. 'call:' .. ARGV[1]
local latest = redis.call('GET', marker)
if not latest then
  redis.call('SET', prefix .. 'confirm', '', 'PX', ARGV[4])
  return ARGV[2] == '0' and 1 or 0
end
redis.call('PEXPIRE', marker, ARGV[4])
local number, since = string.match(latest, '^(%d+)|(%d+)|')
if ARGV[2] == '0' then return 1 end
return tonumber(since) <= tonumber(ARGV[2]) and tonumber(number) >= tonumber(ARGV[3]) and 1 or 0
