-- reflected: unmarks subscriptions whose statistics were written to their status.
-- KEYS  [1] ready
-- ARGV  [1] now, then sub, version for each
-- Returns how many have nothing more to reflect. One that changed after its version stays marked, behind the others.
local n, ids, clean = 0, {}, {}
for i = 2, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
load(ids)
for i = 2, #ARGV, 2 do
  local id, version = ARGV[i], tonumber(ARGV[i + 1])
  local latest = call('ZSCORE', prefix .. 'urgent', id)
  if latest and tonumber(latest) <= version then call('ZREM', prefix .. 'urgent', id) end
  latest = touched[id] and touched[id][VER] or 0
  if latest <= version then
    n = n + call('ZREM', prefix .. 'dirty', id)
    if touched[id] then
      touched[id][DRT] = 0
      clean[#clean + 1] = touched[id]
    end
  else
    call('ZADD', prefix .. 'dirty', 'XX', latest, id)
  end
end
store(clean)
return n
