-- Prolongs the lease of a claim.
-- KEYS: 1 record
-- ARGV: 1 token  2 lease
-- Returns: the lease's new end (integer), or 0 if the claim is not held, or a saga took it over.
local r = redis.call('HMGET', KEYS[1], 'st', 'tok', 'ex', 'sid', 'lu')
if r[1] ~= 'in_progress' or r[2] ~= ARGV[1] or r[4] then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local till = now + ARGV[2]
redis.call('HSET', KEYS[1], 'lu', string.format('%.0f', till))
-- The record stays as long beyond the lease as it did before.
local longer = till - tonumber(r[5])
if r[3] ~= 'inf' and longer > 0 then
  local expires = tonumber(r[3]) + longer
  redis.call('HSET', KEYS[1], 'ex', string.format('%.0f', expires))
  redis.call('PEXPIRE', KEYS[1], math.ceil((expires - now) / 1000))
end
return till
