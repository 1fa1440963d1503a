-- Keeps a snapshot of a saga's state beside its journal, if the sender still owns the saga.
-- KEYS: 1 saga  2 snapshot
-- ARGV: 1 epoch  2 snapshot
-- Returns: 1, or 0 if the saga is another's or gone.
local s = redis.call('HMGET', KEYS[1], 'e', 'o')
if s[1] ~= ARGV[1] or not s[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
