-- Makes a worker the owner of a saga whose epoch is still the expected one, and reads what is needed to go on.
-- KEYS: 1 saga  2 journal  3 owned  4 due  5 snapshot
-- ARGV: 1 saga id  2 worker  3 expected epoch  4 entry id  5 events (the adoption itself)
--       6 expected length or ''  7 newest journal format that the worker reads  8 microseconds, see below
--       9 bytes of journal to read at most  10 due channel
-- Returns: {'ok', saga..., journal..., snapshot or ''}; a longer journal is left out, to be read in pieces, and there
--          may be a snapshot instead of most of it
--          | {'gone'} | {'stale', epoch, owner} | {'unreadable', format}
-- A saga whose journal needs a newer format is left to other workers: its lost owner is removed, and the saga is due
-- after that many microseconds. A parked or pending saga that was not due stays as it is.
local s = redis.call('HMGET', KEYS[1], 'e', 'o', 'pk', 'n', 'f', 'b', 'd', 'ua')
if not s[1] then return {'gone'} end
if s[1] == ARGV[3] and (ARGV[6] == '' or s[4] == ARGV[6]) then
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2]
  local at = string.format('%.0f', math.max(now, s[8] + 1))  -- it rises: see saga_append
  local epoch = string.format('%.0f', s[1] + 1)
  if s[5] and s[5] > ARGV[7] then
    if s[2] then
      redis.call('ZREM', KEYS[3], s[2] .. '\0' .. s[3] .. '\0' .. ARGV[1])
      redis.call('HDEL', KEYS[1], 'o')
      -- The lost owner may still write: the new epoch tells it that the saga is another's.
      redis.call('HSET', KEYS[1], 'e', epoch)
    end
    if s[2] or s[7] then
      local due = string.format('%.0f', now + ARGV[8])
      redis.call('HSET', KEYS[1], 'd', due)
      redis.call('ZADD', KEYS[4], due, ARGV[1])
      -- ANNOUNCED_AHEAD
      if tonumber(ARGV[8]) <= 10000000 then redis.call('PUBLISH', ARGV[10], '') end
    end
    return {'unreadable', s[5]}
  end
  local line = at .. ' ' .. epoch .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]
  redis.call('RPUSH', KEYS[2], line)
  if s[2] then redis.call('ZREM', KEYS[3], s[2] .. '\0' .. s[3] .. '\0' .. ARGV[1]) end
  redis.call('ZADD', KEYS[3], 0, ARGV[2] .. '\0' .. s[3] .. '\0' .. ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('HDEL', KEYS[1], 'd')
  s[6] = (s[6] or 0) + #line
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', ARGV[2], 'n', s[4] + 1, 'ua', at, 'b', s[6])
else
  -- Sent again after a lost reply: then the newest entry is this very adoption.
  local id = string.match(redis.call('LINDEX', KEYS[2], -1), '^%S+ %S+ (%S+) ')
  if id ~= ARGV[4] then return {'stale', s[1], s[2] or ''} end
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the adoption too.
  redis.call('HSET', KEYS[1], 'e', s[1])
end
if s[6] and tonumber(s[6]) <= tonumber(ARGV[9]) then
  return {'ok', redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1), ''}
end
return {'ok', redis.call('HGETALL', KEYS[1]), {}, redis.call('GET', KEYS[5]) or ''}
