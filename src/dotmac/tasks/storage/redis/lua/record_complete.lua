-- Stores how the operation under a key ended. The first ending counts; the same one again changes nothing.
-- KEYS: 1 record
-- ARGV: 1 token or ''  2 status  3 result or ''  4 error after '=', or ''  5 ttl  6 record channel
-- Returns: {'ok', record...} | {'gone'} | {'ended', status} | {'lost'}
local r = redis.call('HMGET', KEYS[1], 'st', 'tok', 're', 'er', 'sid')
if not r[1] then return {'gone'} end
if r[1] == 'completed' or r[1] == 'failed' then
  local same = r[1] == ARGV[2] and (r[2] or '') == ARGV[1] and (r[3] or '') == ARGV[3] and (r[4] and '=' .. r[4] or '') == ARGV[4]
  if not same then return {'ended', r[1]} end
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the ending too.
  redis.call('HSET', KEYS[1], 'st', r[1])
  return {'ok', redis.call('HGETALL', KEYS[1])}
end
if (r[2] or '') ~= ARGV[1] or r[5] then return {'lost'} end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('HSET', KEYS[1], 'st', ARGV[2], 'lu', '0', 'ex', string.format('%.0f', now + ARGV[5]))
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 're', ARGV[3]) end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'er', string.sub(ARGV[4], 2)) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[5] / 1000))
redis.call('PUBLISH', ARGV[6], '')
return {'ok', redis.call('HGETALL', KEYS[1])}
