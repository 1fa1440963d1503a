-- Ends a worker's lease at once.
-- KEYS: 1 leases
-- ARGV: 1 worker
-- Returns: 1
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if till and tonumber(till) > now then redis.call('ZADD', KEYS[1], now, ARGV[1]) end
return 1
