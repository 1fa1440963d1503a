-- Reads all there is of a saga, as of one moment.
-- KEYS: 1 saga  2 journal  3 notes
-- Returns: {saga..., journal..., notes...}; an empty first part means there is no such saga.
return {redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1), redis.call('HVALS', KEYS[3])}
