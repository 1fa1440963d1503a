-- Gives up a lock, or a place in its queue, and wakes the next waiter.
-- KEYS: 1 lock  2 queue  3 waiters  4 held
-- ARGV: 1 name  2 token  3 id of this call
-- Returns: 1 if this token held the lock, 0 if not; the same if the call is sent again before others give it up.
local l = redis.call('HMGET', KEYS[1], 'tok', 'u', 'rel')
if l[3] == ARGV[3] then
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the release too.
  redis.call('HSET', KEYS[1], 'rel', ARGV[3])
  return 1
end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local held = l[1] and tonumber(l[2]) > now
local ours = held and l[1] == ARGV[2]
if l[1] == ARGV[2] then
  redis.call('HDEL', KEYS[1], 'tok', 'own', 's', 'u', 'n')
  redis.call('ZREM', KEYS[4], ARGV[1])
end
if ours then
  redis.call('HSET', KEYS[1], 'rel', ARGV[3])
else
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
end
if ours or not held then
  while true do
    local head = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
    if not head then break end
    local till, channel = string.match(redis.call('HGET', KEYS[3], head) or '', '^(%d+) %d+ ([^\n]*)')
    if till and tonumber(till) > now then
      redis.call('PUBLISH', channel, '')
      break
    end
    redis.call('ZREM', KEYS[2], head)
    redis.call('HDEL', KEYS[3], head)
  end
end
return ours and 1 or 0
