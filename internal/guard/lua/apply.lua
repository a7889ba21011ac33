#!lua flags=allow-oom,allow-cross-slot-keys
-- One batch on one master: wholly, with its watermark, once; or not at all.
-- The drops work on a full Redis as well: they are what frees it.
-- KEYS: 1 watermark.
-- ARGV: 1 owner, 2 epoch, 3 n, 4 lo, 5 settled,
--       6 origin, 7 plan, 8 sweeps (each: empty = as it is),
--       9 cluster ('1': one key a command),
--       10.. the keys to drop, data keys and side keys alike.
-- Returns OK; DONE: this very batch was applied before (a retry after lost
-- replies); LOST: the watermark is not where this owner left it, so writes were
-- lost; FENCED: another owner has taken over.
local w = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'n')
local n = tonumber(ARGV[3])
if w[1] ~= ARGV[1] then
  if tonumber(w[2] or 0) >= tonumber(ARGV[2]) then return 'FENCED' end
  return 'LOST'
end
-- Several batches may have been on their way when the replies were lost. This
-- owner wrote a higher number only behind this one, so this one is in as well.
if tonumber(w[3]) >= n then return 'DONE' end
if tonumber(w[3]) < n - 1 then return 'LOST' end

local first, last = 10, #ARGV
if ARGV[9] == '1' then
  -- A key whose slot has moved away fails here, before the first write.
  for i = first, last do redis.call('EXISTS', ARGV[i]) end
  for i = first, last do redis.call('UNLINK', ARGV[i]) end
else
  -- A Lua call takes a few thousand arguments at most.
  for i = first, last, 1000 do
    redis.call('UNLINK', unpack(ARGV, i, math.min(i + 999, last)))
  end
end

redis.call('HSET', KEYS[1], 'n', ARGV[3], 'lo', ARGV[4], 'settled', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'origin', ARGV[6]) end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'plan', ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'sweeps', ARGV[8]) end
return 'OK'
