-- Tells a worker that one of its sagas is to be cancelled.
-- KEYS: 1 cancels of this worker
-- ARGV: 1 saga id  2 the worker's channel
-- Returns: 1
-- Whoever ends the ownership takes the notice away; one that was left all the same goes by its age (worker_renew).
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] * 1000000 + t[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 86400000)
redis.call('PUBLISH', ARGV[2], '')
return 1
