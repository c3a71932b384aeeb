#!lua name=miaopi_VERSION
-- The store's verbs, one call per batch each. VERSION is replaced by a hash of this text, so that a new server never
-- changes the functions an old one is using. All keys of a call carry the tenant's hash tag.
-- An application key is a hash: h body hash, i stream id, s sequence, p product, d decision, e evidence,
-- c:<version> what a challenger says: fraud and default probability, float64 each.

local function pack_number(n) return struct.pack('<i8', n) end

-- Append one event and its number, so that an error later in the call leaves no number to be used twice.
-- Returns its stream id, or false when `time_ms` (replay only) lies before the end of the log.
local function append(log, meta, event, subject, sequence, time_ms)
  local id = time_ms == '' and '*' or (time_ms .. '-*')
  local reply = redis.pcall('XADD', log, id, 'e', event .. pack_number(subject) .. pack_number(sequence))
  if type(reply) == 'table' then
    if string.find(reply.err, 'equal or smaller', 1, true) then return false end
    error(reply.err)
  end
  redis.call('HSET', meta, 'sequence', sequence)
  return reply
end

local function position(meta, epoch)
  local known = redis.call('HMGET', meta, 'epoch', 'sequence')
  if known[1] ~= epoch then return nil end
  return tonumber(known[2])
end

-- KEYS meta; ARGV candidate epoch. Returns {epoch, sequence}; the first to come names the log.
local function open(keys, args)
  if redis.call('HSETNX', keys[1], 'epoch', args[1]) == 1 then redis.call('HSET', keys[1], 'sequence', 0) end
  local known = redis.call('HMGET', keys[1], 'epoch', 'sequence')
  return {known[1], tonumber(known[2])}
end

-- Empty the slots of events that stand on a consent which the applicant has withdrawn since it was given. `withdrawn`
-- is a hash: <applicant>:<purpose>, or <applicant>: for every purpose, and since when, ms. From `first` on there are for
-- each event and purpose: place of the event among ARGV, applicant, purpose, given_at_ms, and where tokens stand in the
-- event, a byte each.
local function withhold(withdrawn, args, first)
  if not args[first] or redis.call('EXISTS', withdrawn) == 0 then return end
  for n = first, #args, 5 do
    local known = redis.call('HMGET', withdrawn, args[n + 1] .. ':' .. args[n + 2], args[n + 1] .. ':')
    local since = math.max(tonumber(known[1] or 0), tonumber(known[2] or 0))
    if since > 0 and tonumber(args[n + 3]) <= since then
      local place = tonumber(args[n])
      for _, at in ipairs({string.byte(args[n + 4], 1, -1)}) do
        local event = args[place]
        args[place] = string.sub(event, 1, at) .. string.rep('\0', 8) .. string.sub(event, at + 9)
      end
    end
  end
end

-- KEYS log, meta, application keys, withdrawn; ARGV epoch, then for each: body hash, event, time_ms ('' for now),
-- product; then what `withhold` reads. Returns for each {status, stream id, sequence, decision}.
local function begin(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  withhold(keys[#keys], args, 4 * #keys - 10)
  local replies = {}
  for n = 3, #keys - 1 do
    local at = 2 + (n - 3) * 4
    local known = redis.call('HMGET', keys[n], 'h', 'i', 's', 'd')
    if not known[1] then
      local id = append(keys[1], keys[2], args[at + 1], 0, sequence + 1, args[at + 2])
      if id then
        sequence = sequence + 1
        redis.call('HSET', keys[n], 'h', args[at], 'i', id, 's', sequence, 'p', args[at + 3])
        replies[n - 2] = {'NEW', id, sequence, ''}
      else
        replies[n - 2] = {'PAST', '', 0, ''}
      end
    elseif known[1] ~= args[at] then
      replies[n - 2] = {'CONFLICT', known[2], tonumber(known[3]), ''}
    elseif known[4] then
      replies[n - 2] = {'DECIDED', known[2], tonumber(known[3]), known[4]}
    else
      replies[n - 2] = {'PENDING', known[2], tonumber(known[3]), ''}
    end
  end
  return replies
end

-- KEYS decision stream, application keys; ARGV for each: decision, evidence. The first decision stored stays.
-- Returns for each the decision that is stored.
local function commit(keys, args)
  local replies = {}
  for n = 2, #keys do
    local decision = args[2 * n - 3]
    if redis.call('HEXISTS', keys[n], 's') == 0 then
      replies[n - 1] = false
    elseif redis.call('HSETNX', keys[n], 'd', decision) == 1 then
      redis.call('HSET', keys[n], 'e', args[2 * n - 2])
      redis.call('XADD', keys[1], '*', 'k', keys[n])
      replies[n - 1] = decision
    else
      replies[n - 1] = redis.call('HGET', keys[n], 'd')
    end
  end
  return replies
end

-- KEYS application keys; ARGV field, then for each: packed probabilities. Only beside a decision; the first stay.
-- Returns how many are new.
local function put_challenger(keys, args)
  local stored = 0
  for n = 1, #keys do
    if redis.call('HEXISTS', keys[n], 'd') == 1 then
      stored = stored + redis.call('HSETNX', keys[n], args[1], args[n + 1])
    end
  end
  return stored
end

-- KEYS log, meta, then for each: application key, outcome key; ARGV epoch, then for each: body hash, event, time_ms.
-- Returns for each {status, sequence}.
local function report(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  local replies = {}
  for n = 1, (#keys - 2) / 2 do
    local application, outcome = keys[1 + 2 * n], keys[2 + 2 * n]
    local at = 3 * n - 1
    local known = redis.call('HMGET', outcome, 'h', 's')
    local subject = redis.call('HGET', application, 's')
    if known[1] then
      replies[n] = {known[1] == args[at] and 'KNOWN' or 'CONFLICT', tonumber(known[2])}
    elseif not subject then
      replies[n] = {'NOT_FOUND', 0}
    elseif append(keys[1], keys[2], args[at + 1], tonumber(subject), sequence + 1, args[at + 2]) then
      sequence = sequence + 1
      redis.call('HSET', outcome, 'h', args[at], 's', sequence)
      replies[n] = {'NEW', sequence}
    else
      replies[n] = {'PAST', 0}
    end
  end
  return replies
end

-- KEYS profile keys; ARGV a blob for each, fetch time in bytes 9 to 16. Returns for each 1 if it is the newest.
local function put_profiles(keys, args)
  local replies = {}
  for n = 1, #keys do
    local old = redis.call('GET', keys[n])
    local newer = not old or struct.unpack('<i8', old, 9) < struct.unpack('<i8', args[n], 9)
    if newer then redis.call('SET', keys[n], args[n]) end
    replies[n] = (newer or old == args[n]) and 1 or 0
  end
  return replies
end

-- KEYS log, meta, forgotten, withdrawn, profile keys; ARGV epoch, the request as JSON, how many events, events, fields of
-- withdrawn. Returns {sequence of the last event, how many profiles were deleted}.
local function forget(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  local events, id = tonumber(args[3]), nil
  for n = 1, events do id = append(keys[1], keys[2], args[3 + n], 0, sequence + n, '') end
  for n = 4 + events, #args do redis.call('HSET', keys[4], args[n], string.match(id, '^%d+')) end
  local deleted = 0
  for n = 5, #keys do deleted = deleted + redis.call('DEL', keys[n]) end
  redis.call('XADD', keys[3], '*', 'request', args[2], 'sequence', sequence + events, 'profiles', deleted)
  return {sequence + events, deleted}
end

redis.register_function('open_VERSION', open)
redis.register_function('begin_VERSION', begin)
redis.register_function('commit_VERSION', commit)
redis.register_function('put_challenger_VERSION', put_challenger)
redis.register_function('report_VERSION', report)
redis.register_function('put_profiles_VERSION', put_profiles)
redis.register_function('forget_VERSION', forget)
