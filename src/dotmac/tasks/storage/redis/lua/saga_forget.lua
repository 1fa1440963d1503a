-- Removes a saga whose retention is over, from everywhere.
-- KEYS: 1 saga  2 journal  3 notes  4 index  5 expiry  6 snapshot
-- ARGV: 1 saga id
-- Returns: 1 if it was removed, 0 if there was nothing to remove.
local due = redis.call('ZSCORE', KEYS[5], ARGV[1])
local t = redis.call('TIME')
if not due or tonumber(due) > t[1] * 1000000 + t[2] then return 0 end
local s = redis.call('HMGET', KEYS[1], 't', 'y', 'st', 'o', 'f')
-- Somebody looks at it in this moment, to resume it perhaps; if not, it is forgotten next time.
if s[4] then return 0 end
redis.call('ZREM', KEYS[5], ARGV[1])
if not s[1] then return 0 end
redis.call('ZREM', KEYS[4], 'a\0' .. ARGV[1], 't\0' .. s[1] .. '\0' .. ARGV[1], 'y\0' .. s[2] .. '\0' .. ARGV[1],
  's\0' .. s[3] .. '\0' .. ARGV[1], 'f\0' .. (s[5] or '') .. '\0' .. ARGV[1])
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[6]) > 0 and 1 or 0
