-- Reads a saga as of one moment, or, of a long one, a piece.
-- KEYS: 1 saga  2 journal  3 notes
-- ARGV: 1 bytes to read at most (the first entry or note may have more)  2 entries, and notes, to read at most
--       the reader's position: 3 entries, 4 time and 5 id of the newest one, 6 notes, 7 time of the newest one
-- Returns: {saga..., 1, journal..., notes..., count of notes}, after the position
--          | {saga..., 0, journal..., notes..., count of notes}, from the start: the saga does not contain the position
--          | {{}}: there is no such saga
-- Notes follow once the whole journal is read. An entry never changes, and a note never does.
local head = redis.call('HGETALL', KEYS[1])
if #head == 0 then return {head} end
local first, noted, contained = tonumber(ARGV[3]), tonumber(ARGV[6]), 1
if first > 0 then
  local at, id = string.match(redis.call('LINDEX', KEYS[2], first - 1) or '', '^(%S+) %S+ (%S+) ')
  local known = at == ARGV[4] and id == ARGV[5]
  if known and noted > 0 then
    local newest = redis.call('ZRANGE', KEYS[3], noted - 1, noted - 1, 'WITHSCORES')[2]
    known = newest and tonumber(newest) == tonumber(ARGV[7])
  end
  if not known then first, noted, contained = 0, 0, 0 end
end
local most, count, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local s = redis.call('HMGET', KEYS[1], 'n', 'b')
local length = tonumber(s[1]) or 0
local journal, notes = {}, {}
if first == 0 and length <= count and (tonumber(s[2]) or most + 1) <= most then
  journal, bytes = redis.call('LRANGE', KEYS[2], 0, length - 1), tonumber(s[2])
else
  while first + #journal < length and #journal < count do
    local line = redis.call('LINDEX', KEYS[2], first + #journal)
    if not line then break end
    bytes = bytes + #line
    if bytes > most and #journal > 0 then break end
    journal[#journal + 1] = line
  end
end
local total = redis.call('ZCARD', KEYS[3])
if first + #journal == length then
  while noted + #notes < total and #notes < count do
    local note = redis.call('ZRANGE', KEYS[3], noted + #notes, noted + #notes, 'WITHSCORES')
    bytes = bytes + #note[1]
    if bytes > most and #journal + #notes > 0 then break end
    -- Without the id, which makes a note that is sent again the same member.
    notes[#notes + 1] = string.format('%.0f', tonumber(note[2])) .. string.match(note[1], '^%S+( .*)$')
  end
end
return {head, contained, journal, notes, total}
