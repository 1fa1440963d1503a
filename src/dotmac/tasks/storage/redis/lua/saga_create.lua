-- Creates a saga with its first journal entry; under an idempotency key, the key's record in the same step.
-- KEYS: 1 saga  2 journal  3 owned  4 due  5 index  [6 record]
-- ARGV: 1 saga id  2 entry id  3 events  4 tenant  5 type  6 status  7 size  8 cursor  9 priority (as sorted)
--       10 owner or ''  11 due at or ''  12 due channel  13 priority  14 format
--       with a record: 15 record key  16 fingerprint  17 claim token or ''  18 ttl  19 user or ''  20 operation
-- Returns: at (integer) | {'created', saga...} if it was sent before | {'exists'} | {'record', saga id or '', record...}
-- Times are microseconds of this server.
local head = redis.call('LINDEX', KEYS[2], 0)
if head then
  local id = string.match(head, '^%S+ %S+ (%S+) ')
  if id == ARGV[2] then
    -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the creation too.
    redis.call('HSET', KEYS[1], 'z', ARGV[7])
    return {'created', redis.call('HGETALL', KEYS[1])}
  end
  return {'exists'}
end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local at = string.format('%.0f', now)
if KEYS[6] then
  local r = redis.call('HMGET', KEYS[6], 'st', 'fp', 'tok', 'sid')
  if r[1] then
    local ours = r[1] == 'in_progress' and not r[4] and ARGV[17] ~= '' and r[3] == ARGV[17]
    local open = r[1] == 'pending' and r[2] == ARGV[16]
    if not (ours or open) then return {'record', r[4] or '', redis.call('HGETALL', KEYS[6])} end
    redis.call('HSET', KEYS[6], 'st', 'in_progress', 'sid', ARGV[1], 'ex', 'inf')
  else
    redis.call('HSET', KEYS[6], 't', ARGV[4], 'op', ARGV[20], 'fp', ARGV[16], 'ca', at, 'ex', 'inf',
      'st', 'in_progress', 'sid', ARGV[1])
    if ARGV[19] ~= '' then redis.call('HSET', KEYS[6], 'u', ARGV[19]) end
  end
  redis.call('PERSIST', KEYS[6])
  redis.call('HSET', KEYS[1], 'k', ARGV[15])
end
local epoch = ARGV[10] ~= '' and '1' or '0'
local line = at .. ' ' .. epoch .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[1], 't', ARGV[4], 'y', ARGV[5], 'st', ARGV[6], 'ca', at, 'ua', at, 'e', epoch, 'n', '1',
    'c', ARGV[8], 'z', ARGV[7], 'p', ARGV[13], 'pk', ARGV[9], 'f', ARGV[14], 'b', #line, 'o', ARGV[10])
  redis.call('ZADD', KEYS[3], 0, ARGV[10] .. '\0' .. ARGV[9] .. '\0' .. ARGV[1])
else
  redis.call('HSET', KEYS[1], 't', ARGV[4], 'y', ARGV[5], 'st', ARGV[6], 'ca', at, 'ua', at, 'e', epoch, 'n', '1',
    'c', ARGV[8], 'z', ARGV[7], 'p', ARGV[13], 'pk', ARGV[9], 'f', ARGV[14], 'b', #line)
end
redis.call('RPUSH', KEYS[2], line)
if ARGV[14] ~= '0001' then redis.call('ZADD', KEYS[5], 0, 'f\0' .. ARGV[14] .. '\0' .. ARGV[1]) end
redis.call('ZADD', KEYS[5], 0, 'a\0' .. ARGV[1], 0, 't\0' .. ARGV[4] .. '\0' .. ARGV[1],
  0, 'y\0' .. ARGV[5] .. '\0' .. ARGV[1], 0, 's\0' .. ARGV[6] .. '\0' .. ARGV[1])
if ARGV[11] ~= '' and ARGV[10] == '' then
  redis.call('HSET', KEYS[1], 'd', ARGV[11])
  redis.call('ZADD', KEYS[4], ARGV[11], ARGV[1])
  -- ANNOUNCED_AHEAD
  if tonumber(ARGV[11]) <= now + 10000000 then redis.call('PUBLISH', ARGV[12], '') end
end
return now
