-- Prolongs a lock's lease; a lease that is over stays over, one that lasts longer already stays as it is.
-- KEYS: 1 lock  2 held
-- ARGV: 1 name  2 token  3 lease
-- Returns: the lease's end (integer), or 0 if the lock is not held by this token.
local l = redis.call('HMGET', KEYS[1], 'tok', 'u')
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if l[1] ~= ARGV[2] or tonumber(l[2]) <= now then return 0 end
local ends = math.max(now + ARGV[3], tonumber(l[2]))
redis.call('HSET', KEYS[1], 'u', ends)
redis.call('PEXPIRE', KEYS[1], 86400000 + math.ceil((ends - now) / 1000))
redis.call('ZADD', KEYS[2], ends, ARGV[1])
return ends
