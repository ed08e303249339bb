-- lease, a part of trip: takes back what expired, then claims deliveries, a fair share of each subscription that may run.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] most deliveries  [3] most payload bytes (one delivery is given whatever its size)  [4] lease (ms)
--       [5] smallest share of a subscription  [6] most expired leases to take back
--       [7] the dispatcher  [8] most ms that it sleeps
--       [9] time (ms) at which the caller gives up, 0 where it does not know Redis' clock yet
-- Returns {token, now, wake, expired, deliveries, payloads}: wake is when there may be something to lease again (ms;
--       not after now: at once; -1: nothing waits); deliveries is {id, record, ...}, payloads is {event, payload, ...}.
-- Never gives a delivery twice while its lease holds, never one before its time, beyond a place or a rate limit, or to a
-- caller that has given up, as when Redis hung: what it got would wait until its lease runs out.
-- Where work is left that this dispatcher has no room for, it wakes another one that sleeps.
local now = clock()
local most, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local late = gave_up(now, ARGV[9])
if late then most = 0 end
local deliveries = prefix .. 'deliveries'
local back = {}   -- subscription id -> deliveries that go back to the head of fresh

local function put_back(s, id, attempts)
  if attempts == 0 then
    local list = back[s[ID]]
    if not list then
      list = {}
      back[s[ID]] = list
    end
    list[#list + 1] = id
    s[FR] = s[FR] + 1
  else
    call('ZADD', prefix .. 'due:' .. s[ID], now, id)
    s[DU] = s[DU] + 1
  end
end

-- 1. Expired leases: whoever held them may have sent the request, so it counts as sent just now.
local head = call('ZRANGE', prefix .. 'leases', 0, 0, 'WITHSCORES')[2]   -- when the next one runs out
local function reclaim()
  if not head or tonumber(head) > now then return 0 end
  local tokens = call('ZRANGE', prefix .. 'leases', '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[6])
  local ids, of_token, sent, canceled = {}, {}, {}, 0
  for i, token in ipairs(tokens) do
    local left = ARGV[6] - #ids
    if left == 0 then break end
    local claimed = call('SMEMBERS', prefix .. 'claims:' .. token)
    table.sort(claimed)   -- their order is that of their making
    while #claimed > left do claimed[#claimed] = nil end
    of_token[i] = claimed
    for _, id in ipairs(claimed) do ids[#ids + 1] = id end
  end
  local records = gather('HMGET', deliveries, ids)
  load_owners(records)
  -- Nothing was changed up to here: behind data that cannot be read the claims stay, and nothing is forgotten.
  for i, claimed in ipairs(of_token) do unclaim(tokens[i], claimed) end
  for i = #ids, 1, -1 do
    local sub, attempts, _, size, event, type, more = parse(records[i])
    local s = sub and subscription(sub)
    if s then s[INF] = s[INF] - 1 end
    local c = s and stats_of(s)
    if s and s[GONE] == 0 and not is_marked(more) then
      sent[s] = (sent[s] or 0) + 1
      put_back(s, ids[i], attempts)
    elseif sub then
      if s and attempts > 0 then s[RTRY] = s[RTRY] - 1 end
      if s and s[GONE] == 0 then
        sent[s] = (sent[s] or 0) + 1
        c[CANC] = c[CANC] + 1
        dirty[#dirty + 1] = s
      end
      over(now, s and ordinal_of(s) or '', ids[i], 'c', text(attempts) .. more, size,
        is_marked(more) and canceled_reason or gone_reason, c and c[NS] or '', sub, type, event, '', attempts > 0)
      canceled = canceled + 1
    end
  end
  for s, n in pairs(sent) do
    roll(s, now)
    charge(s, now, n)
  end
  finish()
  tally('canceled', canceled)
  for id, list in pairs(back) do variadic('LPUSH', prefix .. 'fresh:' .. id, list) end
  back = {}
  head = call('ZRANGE', prefix .. 'leases', 0, 0, 'WITHSCORES')[2]
  return #ids
end
local expired = reclaim()

-- 2. Who may run, longest waiting first.
local subs = {}
if most > 0 then subs = call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, most) end
local share = #subs > 0 and math.max(tonumber(ARGV[5]), math.ceil(most / #subs)) or 0
local ids, owner = {}, {}
for i, id in ipairs(subs) do
  if (i - 1) % 32 == 0 then   -- by parts, since the last are rarely reached
    local ok, err = pcall(load, {unpack(subs, i, math.min(i + 31, #subs))})
    if not ok and #ids == 0 then error(err, 0) end
    if not ok then break end   -- what was taken out of its queue up to here is leased
  end
  local s = subscription(id)
  local n, before = 0, #ids
  if s then
    s[LINED] = true
    roll(s, now)
    n = math.min(share, room(s), most - before)
  else
    call('ZREM', KEYS[1], id)
  end
  if n > 0 and s[DU] > 0 then
    local due = call('ZRANGE', prefix .. 'due:' .. id, '-inf', now, 'BYSCORE', 'LIMIT', 0, n)
    variadic('ZREM', prefix .. 'due:' .. id, due)
    s[DU], s[INF], n = s[DU] - #due, s[INF] + #due, n - #due
    for _, d in ipairs(due) do
      ids[#ids + 1] = d
      owner[#ids] = s
    end
  end
  if n > 0 and s[FR] > 0 then
    local fresh = call('LPOP', prefix .. 'fresh:' .. id, n) or {}
    s[FR], s[INF] = s[FR] - #fresh, s[INF] + #fresh
    for _, d in ipairs(fresh) do
      ids[#ids + 1] = d
      owner[#ids] = s
    end
  end
  if s then s[TURN] = #ids == before end   -- the others have had theirs once something is given
  if #ids >= most then break end
end

if expired + #ids == 0 then whatever_the_memory() end   -- otherwise something was freed

-- 3. Their records, up to the bytes; what is over goes back to where it was.
local given, names, known, claimed, bytes, token = {}, {}, {}, {}, 0, 0
if #ids > 0 then
  token = call('HINCRBY', prefix .. 'totals', 'token', 1)
  local records = gather('HMGET', deliveries, ids)
  local over = #ids + 1
  for i, id in ipairs(ids) do
    local sub, _, _, size, event = parse(records[i])
    if not sub then   -- somebody removed its record: nothing is left to send
      owner[i][INF] = owner[i][INF] - 1
    else
      if not known[event] then bytes = bytes + size end
      if bytes > most_bytes and #given > 0 then
        over = i
        break
      end
      if not known[event] then
        known[event] = true
        names[#names + 1] = event
      end
      given[#given + 1] = id
      given[#given + 1] = records[i]
      claimed[#claimed + 1] = id
      owner[i][TURN] = true
    end
  end
  for i = #ids, over, -1 do
    local sub, attempts = parse(records[i])
    owner[i][INF] = owner[i][INF] - 1
    if sub then put_back(owner[i], ids[i], attempts) end
  end
  for id, list in pairs(back) do variadic('LPUSH', prefix .. 'fresh:' .. id, list) end
  if #claimed > 0 then
    local expiry = now + ARGV[4]
    claim(token, claimed, expiry)
    if not head or tonumber(head) > expiry then head = expiry end
  end
end
local payloads, list = gather('HMGET', prefix .. 'payloads', names), {}
for i, event in ipairs(names) do
  list[2 * i - 1] = event
  list[2 * i] = payloads[i]
end
flush(now)

-- 4. When to come again: the next that may run, or the next lease that runs out.
local wake_at = tonumber(call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or head or -1)
if head and tonumber(head) < wake_at then wake_at = tonumber(head) end
-- Sleepers by the time (ms) to which they sleep. One whose time is over is awake or dead.
local sleepers, until_at = prefix .. 'sleepers', now + tonumber(ARGV[8])
local function wake(other)
  if not other then return end
  call('ZREM', sleepers, other)
  call('ZREMRANGEBYSCORE', sleepers, '-inf', '(' .. now)
  call('PUBLISH', prefix .. 'wake:' .. other, now)
end
if late then   -- the caller may sleep since a later call of its own, and nobody knows when what came late is due
  if wake_at >= 0 then wake(call('ZRANGE', sleepers, '+inf', now, 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]) end
  wake_at = now
elseif wake_at >= 0 and wake_at <= now then
  call('ZREM', sleepers, ARGV[7])
  wake(call('ZRANGE', sleepers, now, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1])
elseif most == 0 then
  call('ZREM', sleepers, ARGV[7])
else
  if wake_at >= 0 and wake_at < until_at then until_at = wake_at end
  call('ZADD', sleepers, until_at, ARGV[7])
end
return {token, now, wake_at, expired, given, list}
