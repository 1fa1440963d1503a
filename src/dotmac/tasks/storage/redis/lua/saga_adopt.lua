-- Makes a worker the owner of a saga whose epoch is still the expected one, and gives it everything to go on.
-- KEYS: 1 saga  2 journal  3 owned  4 due  5 notes
-- ARGV: 1 saga id  2 worker  3 expected epoch  4 entry id  5 events (the adoption itself)
--       6 expected length or ''
-- Returns: {'ok', saga..., journal..., notes...} | {'gone'} | {'stale', epoch, owner}
local s = redis.call('HMGET', KEYS[1], 'e', 'o', 'pk', 'n', 'ua')
if not s[1] then return {'gone'} end
if s[1] == ARGV[3] and (ARGV[6] == '' or s[4] == ARGV[6]) then
  local t = redis.call('TIME')
  local at = string.format('%.0f', math.max(t[1] * 1000000 + t[2], s[5] + 1))  -- it rises: see saga_append
  local epoch = string.format('%.0f', s[1] + 1)
  redis.call('RPUSH', KEYS[2], at .. ' ' .. epoch .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
  if s[2] then redis.call('ZREM', KEYS[3], s[2] .. '\0' .. s[3] .. '\0' .. ARGV[1]) end
  redis.call('ZADD', KEYS[3], 0, ARGV[2] .. '\0' .. s[3] .. '\0' .. ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('HDEL', KEYS[1], 'd')
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', ARGV[2], 'n', s[4] + 1, 'ua', at)
else
  -- Sent again after a lost reply: then the newest entry is this very adoption.
  local id = string.match(redis.call('LINDEX', KEYS[2], -1), '^%S+ %S+ (%S+) ')
  if id ~= ARGV[4] then return {'stale', s[1], s[2] or ''} end
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the adoption too.
  redis.call('HSET', KEYS[1], 'e', s[1])
end
return {'ok', redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1), redis.call('HVALS', KEYS[5])}
