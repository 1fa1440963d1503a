-- Writes a note beside a saga's journal.
-- KEYS: 1 saga  2 notes
-- ARGV: 1 note id  2 note
-- Returns: 1, or 0 if there is no such saga.
-- The stamps of the notes rise even where the clock goes back, so a note's rank never changes; and a note is not older
-- than the entries that were there before.
local updated = redis.call('HGET', KEYS[1], 'ua')
if not updated then return 0 end
local t = redis.call('TIME')
local newest = tonumber(redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2] or 0)
local at = string.format('%.0f', math.max(t[1] * 1000000 + t[2], newest + 1, tonumber(updated)))
redis.call('ZADD', KEYS[2], 'NX', at, ARGV[1] .. ' ' .. ARGV[2])
return 1
