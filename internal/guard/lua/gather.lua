#!lua
-- Add what the database has found to the set that is being built.
-- KEYS: 1 the set. ARGV: 1 the member of this building so far, 2 that which takes its
-- place, then members.
-- Returns 'OK', or 'LOST': it is not the set that was begun, or it has not what was added
-- before.
if redis.call('SISMEMBER', KEYS[1], ARGV[2]) == 1 then return 'OK' end -- the reply was lost
-- A Redis that goes back in time goes back to before this script or has all of it, so who
-- finds its member finds these as well. It comes before the other goes: a set that has
-- nothing else would be gone.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 'LOST' end
redis.call('SADD', KEYS[1], unpack(ARGV, 2))
redis.call('SREM', KEYS[1], ARGV[1])
return 'OK'
