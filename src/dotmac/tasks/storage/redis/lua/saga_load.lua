-- Reads a saga as of one moment.
-- KEYS: 1 saga  2 journal  3 notes
-- ARGV: 1 bytes of journal to read at most
-- Returns: {saga..., journal..., notes...}; an empty first part means there is no such saga. A longer journal is left
--          out, to be read in pieces: an entry never changes.
local journal = {}
local bytes = redis.call('HGET', KEYS[1], 'b')
if bytes and tonumber(bytes) <= tonumber(ARGV[1]) then journal = redis.call('LRANGE', KEYS[2], 0, -1) end
return {redis.call('HGETALL', KEYS[1]), journal, redis.call('HVALS', KEYS[3])}
