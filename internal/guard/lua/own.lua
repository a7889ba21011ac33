#!lua flags=allow-oom
-- Take a stream over on one master. Only who holds the slot (or the partition)
-- may run it. The caller's batches begin with n = 1.
-- KEYS: 1 watermark. ARGV: 1 owner (16 random bytes, new each time), 2 format.
-- Returns {epoch, lo, settled, origin, plan, sweeps, seen, now (ms of TIME)}; texts are
-- empty where there was none. {'FORMAT', f}: written by a newer release, nothing
-- changed.
local format = redis.call('HGET', KEYS[1], 'format')
if format and tonumber(format) > tonumber(ARGV[2]) then return {'FORMAT', format} end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'format', ARGV[2], 'owner', ARGV[1], 'n', 0)
local found = redis.call('HMGET', KEYS[1], 'lo', 'settled', 'origin', 'plan', 'sweeps', 'seen')
local t = redis.call('TIME')
return {epoch, found[1] or '', found[2] or '', found[3] or '', found[4] or '', found[5] or '', found[6] or '', t[1] * 1000 + math.floor(t[2] / 1000)}
