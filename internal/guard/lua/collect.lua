#!lua
-- Collect the names of keys in a slot from now on: a set that is there is what begin asks
-- for. It stays for a time, with whatever it has: who sweeps makes it anew.
-- KEYS: 1 names. ARGV: 1 draft, 2 how long the set stays, in ms.
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 'OK'
