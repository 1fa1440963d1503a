-- Creates a pending idempotency record, unless there is one.
-- KEYS: 1 record
-- ARGV: 1 tenant  2 user or ''  3 operation  4 fingerprint  5 parameters or ''  6 ttl  7 creation id
-- Returns: {1 if created else 0, record...}
-- Sent again, it finds its own creation id and answers as it did.
local id = redis.call('HMGET', KEYS[1], 'st', 'cid')
if id[1] then
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the creation too.
  if id[2] == ARGV[7] then redis.call('HSET', KEYS[1], 'cid', ARGV[7]) end
  return {id[2] == ARGV[7] and 1 or 0, redis.call('HGETALL', KEYS[1])}
end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('HSET', KEYS[1], 't', ARGV[1], 'op', ARGV[3], 'fp', ARGV[4], 'ca', string.format('%.0f', now),
  'ex', string.format('%.0f', now + ARGV[6]), 'st', 'pending', 'xp', '1', 'cid', ARGV[7])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'u', ARGV[2]) end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'pa', ARGV[5]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[6] / 1000))
return {1, redis.call('HGETALL', KEYS[1])}
