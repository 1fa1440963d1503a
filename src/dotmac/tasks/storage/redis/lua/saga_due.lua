-- Sagas without an owner whose time has come, by this server's clock.
-- KEYS: 1 due
-- ARGV: 1 limit
-- Returns: {saga id...}, longest due first.
local t = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000000 + t[2], 'LIMIT', 0, ARGV[1])
