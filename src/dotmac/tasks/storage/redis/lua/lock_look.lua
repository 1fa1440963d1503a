-- A lock as it stands, with its queue; changes nothing.
-- KEYS: 1 lock  2 queue  3 waiters
-- ARGV: 1 how many waiters at most
-- Returns: {the lock's fields, waiters that did not run out by the server's clock, in order; how many there are}
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local l = redis.call('HGETALL', KEYS[1])
local queue, count = {}, 0
for _, token in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local waiter = redis.call('HGET', KEYS[3], token)
  if waiter and tonumber(string.match(waiter, '^(%d+)')) > now then
    count = count + 1
    if count <= tonumber(ARGV[1]) then queue[count] = waiter end
  end
end
local held = tonumber(redis.call('HGET', KEYS[1], 'u') or 0) > now
return {held and l or {}, queue, count}
