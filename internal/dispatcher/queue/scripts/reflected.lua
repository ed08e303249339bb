-- reflected: unmarks subscriptions whose statistics were written to their status.
-- KEYS  [1] ready
-- ARGV  [1] now, then sub, version for each
-- Returns how many were unmarked. Never unmarks one that changed after that version.
local n = 0
for i = 2, #ARGV, 2 do
  for _, key in ipairs({'dirty', 'urgent'}) do
    local version = call('ZSCORE', prefix .. key, ARGV[i])
    if version and tonumber(version) <= tonumber(ARGV[i + 1]) then
      n = n + call('ZREM', prefix .. key, ARGV[i])
    end
  end
end
return n
