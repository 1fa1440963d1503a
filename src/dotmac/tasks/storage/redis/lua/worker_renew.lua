-- Prolongs a worker's lease, unless it is over, and hands out the cancel requests of the last day for its sagas.
-- KEYS: 1 leases  2 cancels of this worker  3 infos
-- ARGV: 1 worker  2 lease  3 info that replaces the stored one, or ''
-- Returns: {time, saga id...} | 0 if the lease is over.
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if not till or tonumber(till) <= now then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if ARGV[3] ~= '' then
  local stored = redis.call('HGET', KEYS[3], ARGV[1])
  local started = stored and string.match(stored, '^%d+') or string.format('%.0f', now)
  redis.call('HSET', KEYS[3], ARGV[1], started .. ' ' .. ARGV[3])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 86400000000)
return {now, redis.call('ZRANGE', KEYS[2], 0, -1)}
