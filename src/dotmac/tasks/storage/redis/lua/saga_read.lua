-- Reads entries of a journal until they have more than so many bytes; always one at least.
-- KEYS: 1 journal
-- ARGV: 1 bytes  2... positions
-- Returns: {entry...}, in the order of the positions; none where the journal ends before the first position.
local found, bytes = {}, 0
for i = 2, #ARGV do
  local line = redis.call('LINDEX', KEYS[1], ARGV[i])
  if not line then break end
  bytes = bytes + #line
  if i > 2 and bytes > tonumber(ARGV[1]) then break end
  found[#found + 1] = line
end
return found
