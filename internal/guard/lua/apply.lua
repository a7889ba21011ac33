-- One batch on one master: wholly, with its watermark, once; or not at all.
-- It is run under one of two shebangs (see script.go): with allow-oom, since
-- drops are what frees a full Redis, and without where there is a value to SET.
-- KEYS: 1 watermark.
-- ARGV: 1 owner, 2 epoch, 3 n, 4 lo, 5 settled,
--       6 origin, 7 plan, 8 sweeps (each: empty = as it is),
--       9 cluster ('1': one key a command),
--       10 until (ms of this master's TIME), 11 the numbers of names to drop,
--       12 keys to forget, 13 strings to set, 14 strings to restore, 15 hashes to
--       set, 16 seen (empty = as it is), 17 how many of those to forget, the
--       last, are to be loaded again if they are cached, 18 members to take out of
--       sets of indexes, 19 members to add, 20 sets to unlink; then
--       of members to take out, and then of those to add: set and member by turns;
--       sets to unlink;
--       names to drop, data keys and side keys alike;
--       keys to forget, then their side keys;
--       of strings: keys, side keys, ttls, orders, values;
--       of those to restore: keys, side keys, ttls, values;
--       of hashes: keys, side keys, ttls, orders, numbers of fields, and then
--       each one's fields, name and value by turns.
--   ttl: ms; negative: only if the key is cached (to restore: never). order: LSN of the commit,
--   or one below it (over Kafka the row's own), eight bytes big-endian.
-- Returns {'OK', now (ms of TIME; 0 if nothing was to be set), i...}: i are the
-- numbers (from 1: strings to set, hashes, keys to be loaded again) of the sets
-- that became drops, and of the keys to be loaded again; negative where the key
-- was cached until then. Those to be loaded again are told only if they were;
-- {'DONE'}: this very batch was applied before (a retry after lost replies);
-- {'LOST'}: the watermark is not where this owner left it, so writes were lost;
-- {'FENCED'}: another owner has taken over.
local redis, ARGV = redis, ARGV -- globals are slow
local w = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'n')
local n = tonumber(ARGV[3])
if w[1] ~= ARGV[1] then
  if tonumber(w[2] or 0) >= tonumber(ARGV[2]) then return {'FENCED'} end
  return {'LOST'}
end
-- Several batches may have been on their way when the replies were lost. This
-- owner wrote a higher number only behind this one, so this one is in as well.
if tonumber(w[3]) >= n then return {'DONE'} end
if tonumber(w[3]) < n - 1 then return {'LOST'} end

local cluster = ARGV[9] == '1'
local drops, forgets, strings, restores, hashes = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local reloads = tonumber(ARGV[17])
local removes, adds, voids = tonumber(ARGV[18]), tonumber(ARGV[19]), tonumber(ARGV[20])
local addAt = 20 + 2 * removes
local voidAt = addAt + 2 * adds
local dropAt = voidAt + voids
local forgetAt = dropAt + drops
local stringAt = forgetAt + 2 * forgets
local restoreAt = stringAt + 5 * strings
local hashAt = restoreAt + 4 * restores

-- A Lua call takes a few thousand arguments at most.
local function unlink(first, last)
  for i = first, last, 1000 do
    if cluster then
      for j = i, math.min(i + 999, last) do redis.call('UNLINK', ARGV[j]) end
    else
      redis.call('UNLINK', unpack(ARGV, i, math.min(i + 999, last)))
    end
  end
end
-- MGET, since it takes what is no string for nothing.
local function read(first, last)
  local values = {}
  for i = first, last, 1000 do
    local stop = math.min(i + 999, last)
    if cluster then
      for j = i, stop do values[j - first + 1] = redis.call('MGET', ARGV[j])[1] end
    else
      local some = redis.call('MGET', unpack(ARGV, i, stop))
      for j = i, stop do values[j - first + 1] = some[j - i + 1] end
    end
  end
  return values
end
-- Side key: format byte, h (8 bytes), and while a load runs its deadline and
-- token. The lease dies; h, if there is one, stays for as long as it would have.
local zero = '\0\0\0\0\0\0\0\0'
local function unlease(key, side)
  if not side then return zero end
  if #side < 9 then -- none of ours
    redis.call('UNLINK', key)
    return zero
  end
  local h = string.sub(side, 2, 9)
  if h == zero then
    redis.call('UNLINK', key)
  elseif #side > 9 then
    redis.call('SET', key, string.sub(side, 1, 9), 'KEEPTTL')
  end
  return h
end

if cluster then
  -- A key whose slot has moved away fails here, before the first write.
  for i = dropAt + 1, stringAt + 2 * strings do redis.call('EXISTS', ARGV[i]) end
  for i = restoreAt + 1, restoreAt + 2 * restores do redis.call('EXISTS', ARGV[i]) end
  for i = hashAt + 1, hashAt + 2 * hashes do redis.call('EXISTS', ARGV[i]) end
end

local reply = {'OK', 0}
-- A set that cannot be kept up must not stay.
local function edit(command, set, member)
  local answer = redis.pcall(command, set, member)
  if type(answer) == 'table' and answer.err then redis.call('UNLINK', set) end
end
for i = 21, addAt, 2 do edit('SREM', ARGV[i], ARGV[i + 1]) end
for i = addAt + 1, voidAt, 2 do
  -- One that is not there stays so: nothing would say what it lacks.
  if redis.call('EXISTS', ARGV[i]) == 1 then edit('SADD', ARGV[i], ARGV[i + 1]) end
end
unlink(voidAt + 1, dropAt)
unlink(dropAt + 1, forgetAt)
unlink(forgetAt + 1, forgetAt + forgets - reloads)
for i = 1, reloads do
  -- UNLINK says whether it was cached.
  if redis.call('UNLINK', ARGV[forgetAt + forgets - reloads + i]) == 1 then reply[#reply + 1] = -strings - hashes - i end
end
local side = read(forgetAt + forgets + 1, stringAt)
for i = 1, forgets do unlease(ARGV[forgetAt + forgets + i], side[i]) end

if strings + hashes > 0 then
  local t = redis.call('TIME')
  reply[2] = t[1] * 1000 + math.floor(t[2] / 1000)
  -- Held up by a stall: a shield that a reader had left may be gone.
  local late = reply[2] > tonumber(ARGV[10])
  -- Whatever is not newer than what a reader may have shown is doubtful.
  local function newer(order, h)
    if h == zero then return true end
    local ah, al = struct.unpack('>I4I4', order)
    local bh, bl = struct.unpack('>I4I4', h)
    return ah > bh or (ah == bh and al > bl)
  end
  side = read(stringAt + strings + 1, stringAt + 2 * strings)
  for i = 1, strings do
    local key, ttl = ARGV[stringAt + i], ARGV[stringAt + 2 * strings + i]
    local h = unlease(ARGV[stringAt + strings + i], side[i])
    if late or not newer(ARGV[stringAt + 3 * strings + i], h) then
      reply[#reply + 1] = redis.call('UNLINK', key) == 1 and -i or i
    elseif string.sub(ttl, 1, 1) == '-' then
      redis.call('SET', key, ARGV[stringAt + 4 * strings + i], 'XX', 'PX', string.sub(ttl, 2))
    else
      redis.call('SET', key, ARGV[stringAt + 4 * strings + i], 'PX', ttl)
    end
  end
  side = read(hashAt + hashes + 1, hashAt + 2 * hashes)
  local field = hashAt + 5 * hashes + 1
  for i = 1, hashes do
    local key, ttl, fields = ARGV[hashAt + i], ARGV[hashAt + 2 * hashes + i], tonumber(ARGV[hashAt + 4 * hashes + i])
    local h = unlease(ARGV[hashAt + hashes + i], side[i])
    local cached = redis.call('UNLINK', key) == 1
    if late or not newer(ARGV[hashAt + 3 * hashes + i], h) then
      reply[#reply + 1] = cached and -strings - i or strings + i
    elseif fields > 0 and (cached or string.sub(ttl, 1, 1) ~= '-') then
      redis.call('HSET', key, unpack(ARGV, field, field + 2 * fields - 1))
      redis.call('PEXPIRE', key, (string.gsub(ttl, '-', '')))
    end
    field = field + 2 * fields
  end
end

if restores > 0 then
  -- A row of a snapshot is older than whatever anybody may have shown since: it
  -- yields to what is there, and where that is another value neither counts.
  local held = read(restoreAt + 1, restoreAt + restores)
  side = read(restoreAt + restores + 1, restoreAt + 2 * restores)
  for i = 1, restores do
    local key, ttl, value = ARGV[restoreAt + i], ARGV[restoreAt + 2 * restores + i], ARGV[restoreAt + 3 * restores + i]
    if held[i] ~= value then
      unlease(ARGV[restoreAt + restores + i], side[i])
      if redis.call('UNLINK', key) == 0 and not side[i] and string.sub(ttl, 1, 1) ~= '-' then
        redis.call('SET', key, value, 'PX', ttl)
      end
    end
  end
end

redis.call('HSET', KEYS[1], 'n', ARGV[3], 'lo', ARGV[4], 'settled', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'origin', ARGV[6]) end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'plan', ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'sweeps', ARGV[8]) end
if ARGV[16] ~= '' then redis.call('HSET', KEYS[1], 'seen', ARGV[16]) end
return reply
