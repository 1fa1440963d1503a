-- Forgets an idempotency record, unless it was made anew since it was looked at.
-- KEYS: 1 record
-- ARGV: 1 when it was made, as it was read  2 record channel
-- Returns: 1 if it was forgotten, 0 if it was gone.
if redis.call('HGET', KEYS[1], 'ca') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
