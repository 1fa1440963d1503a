-- Sagas without an owner whose time has come, by this server's clock.
-- KEYS: 1 due
-- ARGV: 1 limit
-- Returns: {saga id...}, longest due first | if there are none, when the first one will be due, or ''.
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[1] then return '' end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if tonumber(first[2]) > now then return first[2] end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
