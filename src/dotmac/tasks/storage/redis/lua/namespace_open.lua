-- Creates a namespace, or tells what it was created with.
-- KEYS: 1 namespace
-- ARGV: 1 format  2 partitions
-- Returns: {format, partitions}
redis.call('HSETNX', KEYS[1], 'format', ARGV[1])
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[2])
return redis.call('HMGET', KEYS[1], 'format', 'partitions')
