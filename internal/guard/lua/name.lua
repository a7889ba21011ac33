#!lua flags=allow-oom
-- A pass over the keyspace has left keys where they are: name them, if their slot
-- collects names.
-- KEYS: 1 names. ARGV: the keys.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('SADD', KEYS[1], unpack(ARGV)) end
return 'OK'
