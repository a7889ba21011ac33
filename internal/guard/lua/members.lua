#!lua flags=allow-oom
-- What the set of an index answers.
-- KEYS: 1 the set. ARGV: 1 how many members it may have to be given whole, 2 the member
-- of this reading.
-- Returns its members, with what it says of itself; 'LARGE': there are more, and the
-- set has the member of this reading until it is another one; 'INCOMPLETE': some may be
-- missing.
if redis.call('SISMEMBER', KEYS[1], 'complete') == 0 then return 'INCOMPLETE' end
if redis.call('SCARD', KEYS[1]) <= tonumber(ARGV[1]) then return redis.call('SMEMBERS', KEYS[1]) end
redis.call('SADD', KEYS[1], ARGV[2])
return 'LARGE'
