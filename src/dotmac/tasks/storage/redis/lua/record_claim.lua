-- Claims an idempotency key for a lease, creating its record if need be.
-- KEYS: 1 record
-- ARGV: 1 tenant  2 user or ''  3 operation  4 fingerprint  5 parameters or ''  6 ttl  7 token  8 owner  9 lease
-- Returns: {'granted' | 'in_progress' | 'done' | 'mismatch', record...}
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local at = string.format('%.0f', now)
local r = redis.call('HMGET', KEYS[1], 'st', 'fp', 'tok', 'lu', 'sid', 'ex', 'cl')
local expires
if not r[1] then
  redis.call('HSET', KEYS[1], 't', ARGV[1], 'op', ARGV[3], 'fp', ARGV[4], 'ca', at)
  if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'u', ARGV[2]) end
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'pa', ARGV[5]) end
  expires = now + ARGV[6]
else
  if r[2] ~= ARGV[4] then return {'mismatch', redis.call('HGETALL', KEYS[1])} end
  if r[1] == 'completed' or r[1] == 'failed' then return {'done', redis.call('HGETALL', KEYS[1])} end
  -- A saga's record is not even its starter's: granted again, the operation would run beside the saga.
  if r[5] or (r[1] == 'in_progress' and r[3] ~= ARGV[7] and tonumber(r[4]) > now) then
    return {'in_progress', redis.call('HGETALL', KEYS[1])}
  end
  expires = tonumber(r[6])
end
local again = r[1] == 'in_progress' and r[3] == ARGV[7]
-- Beyond the lease, so that whoever comes after a lost claim finds that there was one.
expires = math.max(expires, now + ARGV[9] + ARGV[6])
redis.call('HSET', KEYS[1], 'st', 'in_progress', 'tok', ARGV[7], 'own', ARGV[8],
  'lu', string.format('%.0f', now + ARGV[9]), 'ex', string.format('%.0f', expires))
if not again then
  -- It rises even where the clock goes back: it is a fence.
  redis.call('HSET', KEYS[1], 'cl', string.format('%.0f', math.max(now, (r[7] or 0) + 1)))
  redis.call('HINCRBY', KEYS[1], 'n', 1)
end
redis.call('PEXPIRE', KEYS[1], math.ceil((expires - now) / 1000))
return {'granted', redis.call('HGETALL', KEYS[1])}
