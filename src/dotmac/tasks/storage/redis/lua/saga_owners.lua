-- Who owns sagas in this partition.
-- KEYS: 1 owned
-- Returns: {worker...}, each once.
-- Members are "worker NUL priority NUL saga": after one member of a worker, the next worker's first is looked up.
local owners = {}
local found = redis.call('ZRANGE', KEYS[1], 0, 0)
while found[1] do
  local worker = string.match(found[1], '^[^%z]+')
  owners[#owners + 1] = worker
  found = redis.call('ZRANGEBYLEX', KEYS[1], '(' .. worker .. '\0\255', '+', 'LIMIT', 0, 1)
end
return owners
