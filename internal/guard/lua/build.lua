#!lua
-- Begin to build the set of an index: from now on the stream keeps it up. A full
-- Redis refuses that.
-- KEYS: 1 watermark, 2 the set. ARGV: 1 owner, 2 the member of this building,
-- 3 ttl in ms.
-- Returns 'OK', or 'LOST': the stream is another owner's.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 'LOST' end
redis.call('UNLINK', KEYS[2])
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 'OK'
