-- One step through the keys of this node.
-- KEYS: 1 any key of the slot that is meant: in a Cluster, a node that has not that slot says who has it
-- ARGV: 1 SCAN's cursor  2 pattern  3 keys to look at
-- Returns: {SCAN's next cursor, {key...}}
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
