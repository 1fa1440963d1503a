-- Forgets a worker that is lost and owns nothing any more.
-- KEYS: 1 leases  2 infos  3 cancels of this worker
-- ARGV: 1 worker
-- Returns: 1 if it is forgotten, 0 if it is alive.
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
local t = redis.call('TIME')
if till and tonumber(till) > t[1] * 1000000 + t[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
