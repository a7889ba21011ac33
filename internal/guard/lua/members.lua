#!lua flags=no-writes,allow-oom
-- What the set of an index answers.
-- KEYS: 1 the set. ARGV: 1 how many members it may have to be given whole.
-- Returns its members, with what it says of itself; 'LARGE': there are more;
-- 'INCOMPLETE': some may be missing.
if redis.call('SISMEMBER', KEYS[1], 'complete') == 0 then return 'INCOMPLETE' end
if redis.call('SCARD', KEYS[1]) > tonumber(ARGV[1]) then return 'LARGE' end
return redis.call('SMEMBERS', KEYS[1])
