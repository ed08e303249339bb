-- settle, a part of trip: ends attempts, with the statistics in the same step.
-- KEYS  [1] ready
-- ARGV  [1] now  [2] most attempts of a delivery, and [3] bytes of all attempts, that are kept while it is unfinished
--       [4] settlements  [5...] their deliveries, then for each: token, result (0 done, 1 retry, 2 fail, 3 release), ms
--       until the next attempt, ms since the endpoint got the request, ms that the exchange took, status, reason, error,
--       the attempt as the history keeps it. They are in the order in which the attempts ended.
-- Returns 1 settled or 0 stale for each.
-- Never changes anything for a lease that was taken back or settled before.
local now = clock()
local most_tries, most_tried, count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- A settlement begins at i in ARGV, behind its delivery: no table is made of it, which would cost more than all the rest.
local fields, rows = 9, 5 + count
local answer, tokens, of_token = {}, {}, {}   -- of_token: which settlements have it
for n = 1, count do
  answer[n] = 0
  local token = ARGV[rows + (n - 1) * fields]
  local list = of_token[token]
  if list then
    list[#list + 1] = n
  else
    of_token[token] = {n}
    tokens[#tokens + 1] = token
  end
end
whatever_the_memory()
local claims = {}   -- by token: the deliveries that are settled now
for _, token in ipairs(tokens) do
  local asked, claimed, seen = {}, {}, {}
  for m, n in ipairs(of_token[token]) do asked[m] = ARGV[n + 4] end
  for m, is_claimed in ipairs(gather('SMISMEMBER', prefix .. 'claims:' .. token, asked)) do
    local id = asked[m]
    if is_claimed == 1 and not seen[id] then
      seen[id] = true
      answer[of_token[token][m]] = 1
      claimed[#claimed + 1] = id
    end
  end
  claims[token] = claimed
end
local ids, valid = {}, {}   -- all of these, and where their settlements begin
for n = 1, count do
  if answer[n] == 1 then
    ids[#ids + 1] = ARGV[n + 4]
    valid[#valid + 1] = rows + (n - 1) * fields
  end
end
if #valid == 0 then return answer end

local records = gather('HMGET', prefix .. 'deliveries', ids)
load_owners(records)
-- Nothing was changed up to here: data that cannot be read leave the claims, and the settlements can come again.
for _, token in ipairs(tokens) do
  if #claims[token] > 0 then unclaim(token, claims[token]) end
end
local rewritten, heads, delayed, tried = {}, {}, {}, {}

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

local function release(s, id, attempts, delay)
  if attempts == 0 and delay == 0 then
    add(heads, s[ID], id)
    s[FR] = s[FR] + 1
  else
    add(delayed, s[ID], text(now + delay), id)
    s[DU] = s[DU] + 1
  end
end

-- Counts an attempt, with its outcome.
local function count_attempt(s, i, outcome, attempts)
  local c = stats_of(s)
  if not s[LAST] then s[WAS_OK], s[WAS_CF] = c[OK], s[CF] end
  s[LAST] = i
  roll(s, now)
  charge(s, now - ARGV[i + 3], 1)
  if ARGV[i + 5] ~= '0' then
    local took = tonumber(ARGV[i + 4])
    c[LSUM] = c[LSUM] + took
    c[LCNT] = c[LCNT] + 1
    tally('lsum', took)
    tally('lcnt', 1)
  end
  if outcome == 's' then
    c[OK] = c[OK] + 1
    s[CF] = 0
    tally('ok', 1)
  else
    s[CF] = s[CF] + 1
  end
  if outcome == 'f' then
    c[FAIL] = c[FAIL] + 1
    tally('failed', 1)
  elseif outcome == 'c' then
    c[CANC] = c[CANC] + 1
    tally('canceled', 1)
  end
  if not outcome then
    if attempts == 0 then s[RTRY] = s[RTRY] + 1 end
  elseif attempts > 0 then
    s[RTRY] = s[RTRY] - 1
  end
end

local outcomes = {['0'] = 's', ['2'] = 'f'}
local of_nobody = {s = 'ok', f = 'failed', c = 'canceled'}   -- counted for one that is gone

for n, i in ipairs(valid) do
  local id, result, reason = ids[n], ARGV[i + 1], ARGV[i + 6]
  local sub, attempts, created, size, event, type, more = parse(records[n])
  local s = sub and touched[sub]
  local outcome, made = outcomes[result], result ~= '3' and 1 or 0   -- made: whether there was an attempt
  if s then s[INF] = s[INF] - 1 end
  if not s or s[GONE] == 1 then
    if not outcome then outcome, reason = 'c', gone_reason end
    tally(of_nobody[outcome], 1)
    if s and attempts > 0 then s[RTRY] = s[RTRY] - 1 end
  else
    if not outcome and is_marked(more) then outcome, reason = 'c', canceled_reason end
    if made == 1 then
      count_attempt(s, i, outcome, attempts)
    elseif outcome then   -- cancelled, and nothing was sent
      local c = stats_of(s)
      c[CANC] = c[CANC] + 1
      tally('canceled', 1)
      if attempts > 0 then s[RTRY] = s[RTRY] - 1 end
      dirty[#dirty + 1] = s
    else
      release(s, id, attempts, tonumber(ARGV[i + 2]))
    end
    if made == 1 and not outcome then
      rewritten[#rewritten + 1] = id
      rewritten[#rewritten + 1] = record(sub, text(attempts + 1) .. more, created, size, type, event)
      add(delayed, sub, text(now + ARGV[i + 2]), id)
      s[DU] = s[DU] + 1
      tried[#tried + 1] = n
    end
  end
  if outcome and sub then
    over(now, s and ordinal_of(s) or '', id, outcome, text(attempts + made) .. more, size, reason,
      s and stats_of(s)[NS] or '', sub, type, event, ARGV[i + 8], attempts > 0)
  end
end

-- Keeps the attempts of deliveries that go on, as many as there is room for.
local function keep_tries()
  if #tried == 0 then return end
  local kept, added = tonumber(call('HGET', prefix .. 'totals', 'tries') or 0), 0   -- without what ends in this call
  for _, n in ipairs(tried) do
    local attempt = ARGV[valid[n] + 8]
    if #attempt > 0 and kept + added + #attempt <= most_tried then
      local key = prefix .. 'tries:' .. ids[n]
      added = added + #attempt
      if call('RPUSH', key, attempt) > most_tries then added = added - #call('LPOP', key) end
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
  local i = s[LAST]
  if i then
    local c, reason = stats_of(s), ARGV[i + 6]
    local first_success = s[WAS_OK] == 0 and c[OK] > 0
    local turned = reason ~= c[LRS] and (final[reason] or final[c[LRS]])
    if first_success or turned or health(s[WAS_CF]) ~= health(s[CF]) then urgent[#urgent + 1] = s end
    c[LAT], c[LST], c[LRS], c[LER] = now, tonumber(ARGV[i + 5]), reason, ARGV[i + 7]
    if c[OK] > s[WAS_OK] then c[LOK] = now end
    dirty[#dirty + 1] = s
  end
end
return answer
