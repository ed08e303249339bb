-- settle: ends attempts, with the statistics in the same step.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] settlements, then for each: delivery, token, result (0 done, 1 retry, 2 fail, 3 release),
--       ms until the next attempt, ms since the request was written, ms that the exchange took, status, reason, error,
--       the attempt as the history keeps it; then most attempts of a delivery, and bytes of all attempts, that are kept
--       while it is unfinished
-- Returns 1 settled or 0 stale for each.
-- Never changes anything for a lease that was taken back or settled before.
local now = clock()
local items, members, i = {}, {}, 3
for n = 1, tonumber(ARGV[2]) do
  items[n] = {
    id = ARGV[i], result = ARGV[i + 2], delay = tonumber(ARGV[i + 3]), ago = tonumber(ARGV[i + 4]),
    took = tonumber(ARGV[i + 5]), status = ARGV[i + 6], reason = ARGV[i + 7], err = ARGV[i + 8],
    tries = ARGV[i + 9]
  }
  members[n] = ARGV[i + 1] .. ':' .. ARGV[i]
  i = i + 10
end
local most_tries, most_tried = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
local answer, held, ids, valid = {}, {}, {}, {}
for n, score in ipairs(gather('ZMSCORE', prefix .. 'leases', members)) do
  answer[n] = 0
  if score and not held[members[n]] then
    held[members[n]] = true
    answer[n] = 1
    valid[#valid + 1] = items[n]
    ids[#ids + 1] = items[n].id
  end
end
if #valid == 0 then return answer end
local claims = {}
for member in pairs(held) do claims[#claims + 1] = member end
variadic('ZREM', prefix .. 'leases', claims)   -- first, since it frees: a full Redis lets the rest be written

local records = gather('HMGET', prefix .. 'deliveries', ids)
load_owners(records)
local rewritten, heads, delayed, sent, tried = {}, {}, {}, {}, {}
local before = {}   -- by subscription: what was before this call, and the last item

local function add(map, id, a, b)
  local list = map[id]
  if not list then
    list = {}
    map[id] = list
  end
  list[#list + 1] = a
  if b then list[#list + 1] = b end
end

local function health(failures)
  return failures == 0 and 'well' or failures < failing_after and 'shaky' or 'failing'
end

-- Reasons that make a condition of their own, whatever the number of failures.
local final = {gone = true, egress_denied = true}

local function release(s, item, attempts)
  if attempts == 0 and item.delay == 0 then
    add(heads, s.id, item.id)
    s.fr = s.fr + 1
  else
    add(delayed, s.id, text(now + item.delay), item.id)
    s.du = s.du + 1
  end
end

local function count(s, item, attempts)
  local c = stats_of(s)
  if not before[s.id] then before[s.id] = {ok = c.ok, cf = s.cf} end
  before[s.id].last = item
  if item.status ~= '0' then
    c.lsum = c.lsum + item.took
    c.lcnt = c.lcnt + 1
    tally('lsum', item.took)
    tally('lcnt', 1)
  end
  if item.result == '0' then
    c.ok = c.ok + 1
    s.cf = 0
    tally('ok', 1)
  else
    s.cf = s.cf + 1
  end
  if item.result == '2' then
    c.fail = c.fail + 1
    tally('failed', 1)
  end
  if item.result == '1' then
    if attempts == 0 then s.rtry = s.rtry + 1 end
  elseif attempts > 0 then
    s.rtry = s.rtry - 1
  end
end

local outcomes = {['0'] = 's', ['1'] = 'c', ['2'] = 'f', ['3'] = 'c', ['4'] = 'c'}   -- 4: cancelled meanwhile

-- Ends a delivery that was cancelled while it was in flight and that would wait again.
local function quit(s, item, attempts)
  local c = stats_of(s)
  c.canc = c.canc + 1
  tally('canceled', 1)
  if item.result == '3' then
    if attempts > 0 then s.rtry = s.rtry - 1 end
    dirty[#dirty + 1] = s
  else
    item.result = '4'
  end
end

for n, item in ipairs(valid) do
  local sub, attempts, created, size, event, type, more = parse(records[n])
  local s = sub and subscription(sub)
  if s then s.inf = s.inf - 1 end
  local ends, reason = item.result == '0' or item.result == '2', item.reason
  if not s or s.gone == 1 then
    local total = item.result == '0' and 'ok' or item.result == '2' and 'failed' or 'canceled'
    tally(total, 1)
    ends = sub ~= nil
    if s and attempts > 0 then s.rtry = s.rtry - 1 end
    if not (item.result == '0' or item.result == '2') then reason = gone_reason end
  elseif item.result == '3' and is_marked(more) then
    quit(s, item, attempts)
    ends, reason = true, canceled_reason
  elseif item.result == '3' then
    release(s, item, attempts)
  else
    local second = math.floor((now - item.ago) / 1000)
    local seconds = sent[sub]
    if not seconds then
      seconds = {}
      sent[sub] = seconds
    end
    seconds[second] = (seconds[second] or 0) + 1
    if not ends and is_marked(more) then
      quit(s, item, attempts)
      ends, reason = true, canceled_reason
    end
    count(s, item, attempts)
    if not ends then
      rewritten[#rewritten + 1] = item.id
      rewritten[#rewritten + 1] = record(sub, text(attempts + 1) .. more, created, size, type, event)
      add(delayed, sub, text(now + item.delay), item.id)
      s.du = s.du + 1
      tried[#tried + 1] = item
    end
  end
  if ends then
    local c = s and stats_of(s)
    over(now, s and ordinal_of(s) or '', item.id, outcomes[item.result],
      text(item.result == '3' and attempts or attempts + 1) .. more, size, reason, c and c.ns or '', sub, type, event,
      item.tries, attempts > 0)
  end
end

-- Keeps the attempts of deliveries that go on, as many as there is room for.
local function keep_tries()
  if #tried == 0 then return end
  local held, added = tonumber(call('HGET', prefix .. 'totals', 'tries') or 0), 0   -- without what ends in this call
  for _, item in ipairs(tried) do
    if #item.tries > 0 and held + added + #item.tries <= most_tried then
      local key = prefix .. 'tries:' .. item.id
      added = added + #item.tries
      if call('RPUSH', key, item.tries) > most_tries then added = added - #call('LPOP', key) end
    end
  end
  tally('tries', added)
end

finish()
keep_tries()
variadic('HSET', prefix .. 'deliveries', rewritten)
for id, list in pairs(heads) do
  for i = 1, math.floor(#list / 2) do list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i] end
  variadic('LPUSH', prefix .. 'fresh:' .. id, list)
end
for id, list in pairs(delayed) do variadic('ZADD', prefix .. 'due:' .. id, list) end
for _, s in ipairs(order) do
  local was = before[s.id]
  if sent[s.id] then roll(s, now) end
  for second, n in pairs(sent[s.id] or {}) do charge(s, second * 1000, n) end
  if was then
    local c, reason = stats_of(s), was.last.reason
    local first_success = was.ok == 0 and c.ok > 0
    local turned = reason ~= c.lrs and (final[reason] or final[c.lrs])
    if first_success or turned or health(was.cf) ~= health(s.cf) then urgent[#urgent + 1] = s end
    c.lat, c.lst, c.lrs, c.ler = now, tonumber(was.last.status), reason, was.last.err
    if c.ok > was.ok then c.lok = now end
    dirty[#dirty + 1] = s
  end
end
flush(now)
return answer
