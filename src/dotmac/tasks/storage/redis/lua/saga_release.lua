-- Ends a worker's ownership without an entry.
-- KEYS: 1 saga  2 owned  3 due
-- ARGV: 1 saga id  2 epoch  3 due at or ''  4 due channel
-- Returns: 'ok', or the owner if a cancel request had been left for it | {'gone'} | {'stale', epoch, owner}
local s = redis.call('HMGET', KEYS[1], 'e', 'o', 'pk', 'xe')
if not s[1] then return {'gone'} end
if s[1] ~= ARGV[2] then return {'stale', s[1], s[2] or ''} end
-- Sent again: what was asked of the saga in the meantime (a cancel made it due, say) stays.
if not s[2] then
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the release too.
  redis.call('HSET', KEYS[1], 'e', s[1])
  return 'ok'
end
redis.call('ZREM', KEYS[2], s[2] .. '\0' .. s[3] .. '\0' .. ARGV[1])
redis.call('HDEL', KEYS[1], 'o')
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local due = ARGV[3]
-- The owner may give the saga up without having seen a request that came under its ownership.
if s[4] == s[1] then due = string.format('%.0f', now) end
if due ~= '' then
  redis.call('HSET', KEYS[1], 'd', due)
  redis.call('ZADD', KEYS[3], due, ARGV[1])
  -- ANNOUNCED_AHEAD
  if tonumber(due) <= now + 10000000 then redis.call('PUBLISH', ARGV[4], '') end
end
if s[4] == s[1] then return s[2] end
return 'ok'
