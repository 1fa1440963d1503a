-- Begins a worker's lease.
-- KEYS: 1 leases  2 infos
-- ARGV: 1 worker  2 lease  3 info
-- Returns: the time (integer).
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSETNX', KEYS[2], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[3])
return now
