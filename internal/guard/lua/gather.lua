#!lua
-- Add what the database has found to the set that is being built.
-- KEYS: 1 the set. ARGV: 1 the member of this building, then members.
-- Returns 'OK', or 'LOST': it is not the set that was begun.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 'LOST' end
redis.call('SADD', KEYS[1], unpack(ARGV, 2))
return 'OK'
