"""What runs inside Redis for redis_history.py, each script in one step. KEYS[1] is what all keys begin with.

Numbers are doubles in Lua: exact up to 2^53, of µs the year 2255. `..` would round them, so `whole` writes them.
"""

_CLOCK = """
local at = KEYS[1]
local function whole(number) return string.format('%.0f', number) end
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""

COMMIT = (
    _CLOCK
    + """
-- ARGV: plan (MessagePack), clock. Nil where something is not as the plan saw it, else what its positions
-- count from and the number of this change.
local plan = cmsgpack.unpack(ARGV[1])
local reached = tonumber(redis.call('GET', at .. 'position') or '0')
if plan.reached and plan.reached ~= reached then return false end
for hash, seen in pairs(plan.seen) do
  for name, value in pairs(seen) do
    if (redis.call('HGET', at .. hash, name) or '') ~= value then return false end
  end
end
local change = redis.call('INCR', at .. 'changes')
local base = plan.absolute and 0 or reached
local last = math.max(reached, base + plan.last)
redis.call('SET', at .. 'position', last)
for _, row in ipairs(plan.rows) do
  local sender, message_id, position, body, kept, waits = unpack(row)
  local value = whole(base + position) .. ' ' .. body
  if kept then redis.call('HSET', at .. 'ev:' .. sender, message_id, value) end
  if waits then redis.call('ZADD', at .. 'arrived', base + position, value) end
end
local function lower(hash, name, us)
  local held = redis.call('HGET', hash, name)
  if not held or tonumber(us) < tonumber(held) then redis.call('HSET', hash, name, us) end
end
for _, sender in ipairs(plan.rewritten) do redis.call('HSET', at .. 'rewritten', sender, change) end
for sender, first_us in pairs(plan.first_us) do
  lower(at .. 'first', sender, first_us)
  redis.call('HSETNX', at .. 'rewritten', sender, change)
  redis.call('HSET', at .. 'versions', sender, change)
end
for _, edge in ipairs(plan.edges) do
  local anonymous, user, us, trusted = unpack(edge)
  lower(at .. 'edge:' .. anonymous, user, us)
  redis.call('SADD', at .. 'of:' .. user, anonymous)
  if trusted then redis.call('SADD', at .. 'sure:' .. user, anonymous) end
  redis.call('HSET', at .. 'hands', anonymous, change)
end
for _, person in ipairs(plan.broken) do
  local held = redis.call('HGET', at .. 'checkpoints', person)
  redis.call('HSET', at .. 'checkpoints', person, (held:gsub('^%a+', 'broken')))
end
local ends = clock(ARGV[2]) + plan.lease_us
for _, person in ipairs(plan.touched) do
  redis.call('HSET', at .. 'touched', person, last)
  if redis.call('ZSCORE', at .. 'slow', person) then
    redis.call('ZADD', at .. 'slow', 0, person)
  else
    redis.call('ZADD', at .. 'due', 0, person)
    redis.call('ZADD', at .. 'leased', ends, person)
  end
end
return {base, change}
"""
)

CLAIM = (
    _CLOCK
    + """
-- ARGV: lane, due by, most, length of the lease, clock.
local now, most, found, start = clock(ARGV[5]), tonumber(ARGV[3]), {}, 0
redis.call('ZREMRANGEBYSCORE', at .. 'leased', '-inf', now)
while #found < most do
  local page = redis.call('ZRANGEBYSCORE', at .. ARGV[1], '-inf', ARGV[2], 'LIMIT', start, 500)
  if #page == 0 then break end
  local leased = redis.call('ZMSCORE', at .. 'leased', unpack(page))
  for i, person in ipairs(page) do
    if not leased[i] and #found < most then
      found[#found + 1] = person
      redis.call('ZADD', at .. 'leased', now + ARGV[4], person)
    end
  end
  start = start + #page
end
return found
"""
)

NOTE = """
-- ARGV: position, then for each person: name, event µs ('': gone), due µs ('': never).
-- Who was touched meanwhile keeps the lease: whoever added the event has it; in the slow lane nobody took one then.
local at, by = KEYS[1], tonumber(ARGV[1])
for i = 2, #ARGV, 3 do
  local person, event, due = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local late = tonumber(redis.call('HGET', at .. 'touched', person) or '0') > by
  local slow = redis.call('ZSCORE', at .. 'slow', person)
  if event ~= '' then
    local held = redis.call('HGET', at .. 'written', person)
    if not held or tonumber(event) >= tonumber(held) then
      redis.call('HSET', at .. 'written', person, event)
    else
      due = '0'
    end
    if late then due = '0' end
    redis.call('ZREM', at .. 'slow', person)
    if due == '' then redis.call('ZREM', at .. 'due', person) else redis.call('ZADD', at .. 'due', due, person) end
  elseif not late then
    redis.call('HDEL', at .. 'written', person)
    redis.call('ZREM', at .. 'due', person)
    redis.call('ZREM', at .. 'slow', person)
  end
  if slow or not late then redis.call('ZREM', at .. 'leased', person) end
  redis.call('HDEL', at .. 'aside', person)
end
"""

SET_ASIDE = """
-- ARGV: position, then for each user: name, reason. The lease of who was touched meanwhile stays, as in NOTE.
local at, by = KEYS[1], tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  local person = ARGV[i]
  redis.call('HSET', at .. 'aside', person, ARGV[i + 1])
  if tonumber(redis.call('HGET', at .. 'touched', person) or '0') <= by then
    for _, set in ipairs({'due', 'slow', 'leased'}) do redis.call('ZREM', at .. set, person) end
  end
end
"""

DEFER = """
-- ARGV: due since, then persons. Who is there already stays with whoever works on them.
local at = KEYS[1]
for i = 2, #ARGV do
  local person = ARGV[i]
  if not redis.call('ZSCORE', at .. 'slow', person) then
    local due = redis.call('ZSCORE', at .. 'due', person)
    if due then redis.call('ZADD', at .. 'slow', due, person) end
    redis.call('ZREM', at .. 'due', person)
    redis.call('ZREM', at .. 'leased', person)
  end
  redis.call('ZADD', at .. 'slow', 'LT', ARGV[1], person)
end
"""

FOLD = """
-- ARGV: person, position, through µs, base, some message ids. The new checkpoint, or nil where there can be none.
local at, person = KEYS[1], ARGV[1]
if tonumber(redis.call('HGET', at .. 'touched', person) or '0') > tonumber(ARGV[2]) then return false end
local held = redis.call('HGET', at .. 'checkpoints', person)
if held and not held:match('^holds ') then return false end
for i = 5, #ARGV do
  if redis.call('HEXISTS', at .. 'ev:' .. person, ARGV[i]) == 0 then return false end
end
local change = string.format('%.0f', redis.call('INCR', at .. 'changes'))
local made = table.concat({'moving', ARGV[3], change, ARGV[4]}, ' ')
redis.call('HSET', at .. 'checkpoints', person, made)
return made
"""

FOLD_SOME = """
-- ARGV: person, checkpoint as it was made, message ids; none: that was all. Whether the checkpoint is still that one.
local at, person = KEYS[1], ARGV[1]
if redis.call('HGET', at .. 'checkpoints', person) ~= ARGV[2] then return 0 end
if #ARGV == 2 then
  redis.call('HSET', at .. 'checkpoints', person, (ARGV[2]:gsub('^%a+', 'holds')))
end
for i = 3, #ARGV do
  local value = redis.call('HGET', at .. 'ev:' .. person, ARGV[i])
  if value then
    redis.call('HSETNX', at .. 'past:' .. person, ARGV[i], value)
    redis.call('HDEL', at .. 'ev:' .. person, ARGV[i])
  end
end
local change = redis.call('INCR', at .. 'changes')
for _, hash in ipairs({'versions', 'rewritten'}) do redis.call('HSET', at .. hash, person, change) end
return 1
"""

BREAK = """
-- ARGV: persons.
local at = KEYS[1]
for _, person in ipairs(ARGV) do
  local held = redis.call('HGET', at .. 'checkpoints', person)
  if held then redis.call('HSET', at .. 'checkpoints', person, (held:gsub('^%a+', 'broken'))) end
end
"""

UNFOLD_SOME = """
-- ARGV: person, cursor, about how many. The next cursor, or nil where there is nothing more to take back.
local at, person = KEYS[1], ARGV[1]
local held = redis.call('HGET', at .. 'checkpoints', person)
if not (held and held:match('^broken ')) then return false end
local scan = redis.call('HSCAN', at .. 'past:' .. person, ARGV[2], 'COUNT', ARGV[3])
for i = 1, #scan[2], 2 do
  redis.call('HSETNX', at .. 'ev:' .. person, scan[2][i], scan[2][i + 1])
  redis.call('HDEL', at .. 'past:' .. person, scan[2][i])
end
local change = redis.call('INCR', at .. 'changes')
for _, hash in ipairs({'versions', 'rewritten'}) do redis.call('HSET', at .. hash, person, change) end
if redis.call('EXISTS', at .. 'past:' .. person) == 1 then return scan[1] end
redis.call('HDEL', at .. 'checkpoints', person)
return false
"""

LEAVE = """
-- ARGV: senders.
local at = KEYS[1]
local change = redis.call('INCR', at .. 'changes')
for _, name in ipairs(ARGV) do
  redis.call('UNLINK', at .. 'ev:' .. name, at .. 'past:' .. name)
  redis.call('HDEL', at .. 'checkpoints', name)
  for _, hash in ipairs({'versions', 'rewritten'}) do redis.call('HSET', at .. hash, name, change) end
  redis.call('SADD', at .. 'elsewhere', name)
end
"""

ERASE = """
-- ARGV: senders. The position up to which they are to be taken out of `arrived` too.
local at = KEYS[1]
local change = redis.call('INCR', at .. 'changes')
for _, name in ipairs(ARGV) do
  redis.call('UNLINK', at .. 'ev:' .. name, at .. 'past:' .. name)
  for _, hash in ipairs({'first', 'versions', 'rewritten', 'written', 'touched', 'checkpoints', 'aside'}) do
    redis.call('HDEL', at .. hash, name)
  end
  for _, set in ipairs({'due', 'slow', 'leased'}) do redis.call('ZREM', at .. set, name) end
  redis.call('SREM', at .. 'elsewhere', name)
  for _, anonymous in ipairs(redis.call('SMEMBERS', at .. 'of:' .. name)) do
    redis.call('HDEL', at .. 'edge:' .. anonymous, name)
    redis.call('HSET', at .. 'hands', anonymous, change)
  end
  redis.call('UNLINK', at .. 'of:' .. name, at .. 'sure:' .. name)
  local anonymous = name:match('^anon:(.*)$')
  if anonymous then
    for _, user in ipairs(redis.call('HKEYS', at .. 'edge:' .. anonymous)) do
      redis.call('SREM', at .. 'of:' .. user, anonymous)
      redis.call('SREM', at .. 'sure:' .. user, anonymous)
    end
    redis.call('UNLINK', at .. 'edge:' .. anonymous)
    redis.call('HDEL', at .. 'hands', anonymous)
  end
end
return tonumber(redis.call('GET', at .. 'position') or '0')
"""
