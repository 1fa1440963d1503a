-- Writes a note beside a saga's journal.
-- KEYS: 1 saga  2 notes
-- ARGV: 1 note id  2 note
-- Returns: 1, or 0 if there is no such saga.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local t = redis.call('TIME')
redis.call('HSETNX', KEYS[2], ARGV[1], string.format('%.0f', t[1] * 1000000 + t[2]) .. ' ' .. ARGV[2])
return 1
