-- Creates a namespace, or tells what it was created with.
-- KEYS: 1 namespace
-- ARGV: 1 format  2 partitions
-- Returns: {format, partitions}
local known = redis.call('HMGET', KEYS[1], 'format', 'partitions')
if known[1] and known[2] then
  return known  -- nothing is written then, so that a server that is full, or a replica, can be looked at
end
redis.call('HSETNX', KEYS[1], 'format', ARGV[1])
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[2])
return redis.call('HMGET', KEYS[1], 'format', 'partitions')
