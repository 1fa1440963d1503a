-- Adds an entry to a saga's journal, if the sender still owns it and the position is free.
-- KEYS: 1 saga  2 journal  3 index  4 expiry
--       with an entry that gives the saga up: 5 owned  6 due  [7 record]
-- ARGV: 1 epoch  2 sequence  3 entry id  4 events  5 status  6 cursor  7 saga id  8 format that the events need
--       with an entry that gives the saga up: 9 'release', 'final', or 'complete' (final, unless a cancel request is
--       stored)  10 due at or ''  11 due channel
--       12 retention or ''  13 saga channel  14 the missing handler that the saga waits for, or ''
--       with a record: 15 status  16 result or ''  17 error after '=', or ''  18 ttl  19 record channel
-- Nearly all entries keep the saga: what these do not need is not sent.
-- Returns: at (integer) | {at, cancel reason or nil, owner} | {'cancelled', reason}: nothing was written
--          | {'gone'} | {'stale', epoch, owner} | {'conflict', length, owner}
-- Sent again, it finds its own entry and answers as it did.
local s = redis.call('HMGET', KEYS[1], 'e', 'n', 'st', 'o', 'x', 'pk', 'xe', 'ua', 'f', 'b', 'w')
if not s[1] then return {'gone'} end
if s[1] ~= ARGV[1] then
  -- An entry that gives the saga up may be there, and the saga have found another owner since.
  local line = ARGV[9] and redis.call('LINDEX', KEYS[2], ARGV[2])
  local at, id = string.match(line or '', '^(%S+) %S+ (%S+) ')
  if id ~= ARGV[3] then return {'stale', s[1], s[4] or ''} end
  redis.call('HSET', KEYS[1], 'e', s[1])
  return tonumber(at)
end
local n, seq = tonumber(s[2]), tonumber(ARGV[2])
if n > seq then
  local at, id = string.match(redis.call('LINDEX', KEYS[2], seq), '^(%S+) %S+ (%S+) ')
  if id ~= ARGV[3] then return {'conflict', s[2], s[4] or ''} end
  -- Written once more, so that a WAIT or WAITAOF behind this call speaks of the entry too.
  redis.call('HSET', KEYS[1], 'e', s[1])
  if s[5] then return {tonumber(at), s[5], s[4] or ''} end
  return tonumber(at)
end
if n < seq or not s[4] then return {'conflict', s[2], s[4] or ''} end
-- A stored request was acknowledged to its caller, so the saga must turn back instead.
if ARGV[9] == 'complete' and s[5] then return {'cancelled', s[5]} end
local final = ARGV[9] == 'final' or ARGV[9] == 'complete'
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
-- The stamps of a journal rise even where the clock goes back: they are fences.
local stamp = math.max(now, s[8] + 1)
local at = string.format('%.0f', stamp)
local line = at .. ' ' .. s[1] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
redis.call('RPUSH', KEYS[2], line)
redis.call('HSET', KEYS[1], 'n', n + 1, 'ua', at, 'c', ARGV[6], 'st', ARGV[5], 'b', (s[10] or 0) + #line)
local format = s[9] or '0001'
if ARGV[8] > format then
  redis.call('ZREM', KEYS[3], 'f\0' .. format .. '\0' .. ARGV[7])
  redis.call('ZADD', KEYS[3], 0, 'f\0' .. ARGV[8] .. '\0' .. ARGV[7])
  redis.call('HSET', KEYS[1], 'f', ARGV[8])
end
if s[3] ~= ARGV[5] then
  redis.call('ZREM', KEYS[3], 's\0' .. s[3] .. '\0' .. ARGV[7])
  -- Completed sagas are nearly all there are: to list them, the index of all does as well.
  if ARGV[5] ~= 'completed' then redis.call('ZADD', KEYS[3], 0, 's\0' .. ARGV[5] .. '\0' .. ARGV[7]) end
end
local missing = ARGV[14] or ''
if (s[11] or '') ~= missing then
  if s[11] then
    redis.call('ZREM', KEYS[3], 'w\0' .. s[11] .. '\0' .. ARGV[7])
    redis.call('HDEL', KEYS[1], 'w')
  end
  if missing ~= '' then
    redis.call('ZADD', KEYS[3], 0, 'w\0' .. missing .. '\0' .. ARGV[7])
    redis.call('HSET', KEYS[1], 'w', missing)
  end
end
if ARGV[9] then
  redis.call('ZREM', KEYS[5], s[4] .. '\0' .. s[6] .. '\0' .. ARGV[7])
  if final and s[5] then
    redis.call('HDEL', KEYS[1], 'o', 'x', 'xe')
  else
    redis.call('HDEL', KEYS[1], 'o')
  end
  local due = ARGV[9] == 'release' and ARGV[10] or ''
  -- The owner may give the saga up without having seen a request that came under its ownership.
  if ARGV[9] == 'release' and s[7] == s[1] then due = at end
  if due ~= '' then
    redis.call('HSET', KEYS[1], 'd', due)
    redis.call('ZADD', KEYS[6], due, ARGV[7])
    -- ANNOUNCED_AHEAD
    if tonumber(due) <= now + 10000000 then redis.call('PUBLISH', ARGV[11], '') end
  end
end
if s[3] == 'failed' then redis.call('ZREM', KEYS[4], ARGV[7]) end
if final then
  if ARGV[12] ~= '' then redis.call('ZADD', KEYS[4], now + ARGV[12], ARGV[7]) end
  if KEYS[7] and redis.call('HGET', KEYS[7], 'sid') == ARGV[7] then
    redis.call('HSET', KEYS[7], 'st', ARGV[15], 'lu', '0', 'ex', string.format('%.0f', now + ARGV[18]))
    if ARGV[16] ~= '' then redis.call('HSET', KEYS[7], 're', ARGV[16]) end
    if ARGV[17] ~= '' then redis.call('HSET', KEYS[7], 'er', string.sub(ARGV[17], 2)) end
    redis.call('PEXPIRE', KEYS[7], math.ceil(ARGV[18] / 1000))
    redis.call('PUBLISH', ARGV[19], '')
  end
  redis.call('PUBLISH', ARGV[13], '')
end
if s[5] then return {stamp, not final and s[5], s[4]} end
return stamp
