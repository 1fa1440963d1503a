-- Takes a lock, or a place in its queue.
-- KEYS: 1 lock  2 queue  3 waiters  4 held
-- ARGV: 1 name  2 token  3 lease  4 owner  5 wait or ''  6 topic's channel  7 fences  8 token that is given up or ''
-- Returns: {'granted', first fence, until} | {'queued', ahead, retry after}
-- A waiter is '<until> <since> <channel>\n<owner>'.
-- Waiters that did not come back in time are dropped when they reach the head, so each costs one removal in all.
local idle = 86400000
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local l = redis.call('HMGET', KEYS[1], 'tok', 'u', 'f', 'n')
if ARGV[8] ~= '' then
  redis.call('ZREM', KEYS[2], ARGV[8])
  redis.call('HDEL', KEYS[3], ARGV[8])
  if l[1] == ARGV[8] then
    redis.call('HDEL', KEYS[1], 'tok', 'own', 's', 'u', 'n')
    redis.call('ZREM', KEYS[4], ARGV[1])
    l[1] = false
  end
end
local held = l[1] and tonumber(l[2]) > now
if held and l[1] == ARGV[2] then
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the grant too.
  redis.call('HSET', KEYS[1], 'tok', ARGV[2])
  return {'granted', l[3] - l[4] + 1, tonumber(l[2])}
end
local head, till
while true do
  head = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not head then break end
  local waiter = redis.call('HGET', KEYS[3], head)
  till = waiter and tonumber(string.match(waiter, '^(%d+)')) or 0
  if till > now then break end
  redis.call('ZREM', KEYS[2], head)
  redis.call('HDEL', KEYS[3], head)
end
if not held and (not head or head == ARGV[2]) then
  if head then
    redis.call('ZREM', KEYS[2], head)
    redis.call('HDEL', KEYS[3], head)
  end
  -- The clock's part lets the fence rise even where the counter was lost.
  local fence = math.max(tonumber(l[3] or 0) + 1, now)
  local ends = now + ARGV[3]
  redis.call('HSET', KEYS[1], 'tok', ARGV[2], 'own', ARGV[4], 'f', fence + ARGV[7] - 1,
    'n', ARGV[7], 's', now, 'u', ends)
  redis.call('PEXPIRE', KEYS[1], idle + math.ceil(ARGV[3] / 1000))
  redis.call('ZADD', KEYS[4], ends, ARGV[1])
  return {'granted', fence, ends}
end
if ARGV[5] ~= '' then
  local before, since = string.match(redis.call('HGET', KEYS[3], ARGV[2]) or '', '^(%d+) (%d+) ')
  -- Whose place ran out comes last.
  if not before or tonumber(before) <= now then
    redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[1], 'tk', 1), ARGV[2])
    since = string.format('%.0f', now)
  end
  redis.call('HSET', KEYS[3], ARGV[2],
    string.format('%.0f', now + ARGV[5]) .. ' ' .. since .. ' ' .. ARGV[6] .. '\n' .. ARGV[4])
  local keep = idle + math.ceil(ARGV[5] / 1000)
  redis.call('PEXPIRE', KEYS[2], keep)
  redis.call('PEXPIRE', KEYS[3], keep)
  -- The lock itself outlives its lease, whoever waits for it.
  redis.call('PEXPIRE', KEYS[1], math.max(keep, held and idle + math.ceil((l[2] - now) / 1000) or 0))
  if not head then head = ARGV[2] end
end
if not held and head then
  redis.call('PUBLISH', string.match(redis.call('HGET', KEYS[3], head), '^%d+ %d+ ([^\n]*)'), '')
end
local ahead = redis.call('ZRANK', KEYS[2], ARGV[2]) or redis.call('ZCARD', KEYS[2])
return {'queued', ahead, (held and tonumber(l[2]) or till or now) - now}
