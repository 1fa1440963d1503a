-- Ends a worker's lease at once.
-- KEYS: 1 leases
-- ARGV: 1 worker
-- Returns: 1, or 0 if it had ended.
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if not till or tonumber(till) <= now then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
return 1
