-- Leaves a cancel request at a saga that has not ended; one without an owner becomes due at once.
-- The reason of the first request is kept.
-- KEYS: 1 saga  2 due
-- ARGV: 1 saga id  2 reason  3 due channel
-- Returns: saga...; empty if there is no such saga.
local s = redis.call('HMGET', KEYS[1], 'st', 'o', 'e', 'd')
if not s[1] then return {} end
if s[1] ~= 'completed' and s[1] ~= 'compensated' and s[1] ~= 'failed' then
  redis.call('HSETNX', KEYS[1], 'x', ARGV[2])
  redis.call('HSET', KEYS[1], 'xe', s[3])
  if not s[2] then
    local t = redis.call('TIME')
    local now = t[1] * 1000000 + t[2]
    if not s[4] or tonumber(s[4]) > now then
      local at = string.format('%.0f', now)
      redis.call('HSET', KEYS[1], 'd', at)
      redis.call('ZADD', KEYS[2], at, ARGV[1])
    end
    redis.call('PUBLISH', ARGV[3], '')
  end
end
return redis.call('HGETALL', KEYS[1])
