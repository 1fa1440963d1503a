-- Gives a claim back: nothing was done under it.
-- KEYS: 1 record
-- ARGV: 1 token  2 record channel
-- Returns: 1, or 0 if the claim is somebody else's.
local r = redis.call('HMGET', KEYS[1], 'st', 'tok', 'xp', 'sid', 'n')
if not r[1] or r[1] == 'pending' then return 1 end
-- A saga that was started under the claim took it over: giving it back would let a second saga start.
if r[1] ~= 'in_progress' or r[2] ~= ARGV[1] or r[4] then return 0 end
-- That an earlier claim was lost stays known: whoever comes next must not take the work for untouched.
if r[3] or tonumber(r[5]) > 1 then
  redis.call('HDEL', KEYS[1], 'tok', 'own', 'lu')
  redis.call('HSET', KEYS[1], 'st', 'pending')
else
  redis.call('DEL', KEYS[1])
end
redis.call('PUBLISH', ARGV[2], '')
return 1
