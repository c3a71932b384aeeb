#!lua name=miaopi_VERSION
-- The store's verbs, one call per batch each. VERSION is replaced by a hash of this text, so that a new server never
-- changes the functions an old one is using. All keys of a call carry the tenant's hash tag.
-- An application key is a hash: h body hash, i stream id, s sequence, p product, d decision, e evidence,
-- c:<version> what a challenger says: fraud and default probability, float64 each,
-- r what it reserved, x how much of that was given back since, x:<funder> how much of that was the funder's, l where it
-- was given back as the loan was said never to be paid out,
-- v what a person decided after d, vh hash of what was asked then, vt when, ms, vs number of the last event then,
-- z since when it waited for a person, ms, where a report ended it before one decided,
-- o what a report before d says that it gives back, as `release` reads it.
-- A reservation is JSON: [borrower, amount, most or null, [[funder, amount, cap], ...]]. It is counted in x:<borrower>
-- and f:<funder> under the tenant's prefix. All amounts are integers of minor units, below 2^53.

local FOR_GOOD_MS = '4102444800000' -- the year 2100: a log's clock does not go beyond

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

-- KEYS meta; ARGV candidate epoch. Returns {epoch, sequence, up to which event `replace_log` changed it}; the first to
-- come names the log.
local function open(keys, args)
  if redis.call('HSETNX', keys[1], 'epoch', args[1]) == 1 then redis.call('HSET', keys[1], 'sequence', 0) end
  local known = redis.call('HMGET', keys[1], 'epoch', 'sequence', 'rewritten')
  return {known[1], tonumber(known[2]), tonumber(known[3] or 0)}
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

local function counted(key) return tonumber(redis.call('GET', key) or 0) end

-- What each of a JSON list of funders has lent.
local function lent(prefix, funders)
  local all = {}
  for n, funder in ipairs(cjson.decode(funders)) do all[n] = counted(prefix .. 'f:' .. funder) end
  return all
end

-- Count a reservation where the borrower and every funder have room for it, or it has `ended` and is given back at once,
-- else nothing. Returns whether it is counted.
local function reserve(prefix, application, packed, ended)
  local borrower, amount, most, shares = unpack(cjson.decode(packed))
  if not ended then
    if most ~= cjson.null and counted(prefix .. 'x:' .. borrower) + amount > most then return false end
    for _, share in ipairs(shares) do
      if counted(prefix .. 'f:' .. share[1]) + share[2] > share[3] then return false end
    end
  end
  redis.call('INCRBY', prefix .. 'x:' .. borrower, amount)
  for _, share in ipairs(shares) do redis.call('INCRBY', prefix .. 'f:' .. share[1], share[2]) end
  redis.call('HSET', application, 'r', packed)
  return true
end

-- floor(a * b / c) of whole numbers below 2^50, a not above c: long multiplication, two bits of b at a time, as a * b
-- itself may be more than a double holds.
local function portion(a, b, c)
  local quotient, rest = 0, 0
  for place = 24, 0, -1 do
    rest = rest * 4 + a * (math.floor(b / 4 ^ place) % 4)
    local times = math.floor(rest / c)
    quotient, rest = quotient * 4 + times, rest - times * c
  end
  return quotient
end

-- How much of `freed` each share's funder gets back: in proportion to what is left of it, in whole minor units that sum
-- to it. `left` is the sum of what is left.
local function spread(shares, back, freed, left)
  local parts, rest = {}, freed
  for n, share in ipairs(shares) do
    parts[n] = portion(share[2] - back[n], freed, left)
    rest = rest - parts[n]
  end
  for n, share in ipairs(shares) do
    local more = math.min(rest, share[2] - back[n] - parts[n])
    parts[n], rest = parts[n] + more, rest - more
  end
  return parts
end

-- Give back of what an application reserved: 'all' that is left, or as 'lapsed', since the loan is never paid out; an
-- amount of it; 'none' takes all back again, and so does 'paid' what had lapsed.
local function release(prefix, application, what)
  local packed = what ~= '' and redis.call('HGET', application, 'r')
  if not packed then return end
  local borrower, amount, _, shares = unpack(cjson.decode(packed))
  local known, back = redis.call('HMGET', application, 'x', 'l'), {}
  if what == 'paid' then
    if not known[2] then return end
    what = 'none'
  end
  if what == 'all' or what == 'none' then redis.call('HDEL', application, 'l') end
  for n, share in ipairs(shares) do back[n] = tonumber(redis.call('HGET', application, 'x:' .. share[1]) or 0) end
  local released = tonumber(known[1] or 0)
  local left, freed, parts = amount - released, -released, {}
  if what == 'lapsed' or what == 'all' then
    freed = left
  elseif what ~= 'none' then
    freed = math.min(left, tonumber(what))
  end
  if freed == 0 then return end
  if what ~= 'none' then
    parts = spread(shares, back, freed, left)
  else
    for n in ipairs(shares) do parts[n] = -back[n] end
  end
  if what == 'lapsed' then redis.call('HSET', application, 'l', 1) end
  redis.call('HINCRBY', application, 'x', freed)
  redis.call('DECRBY', prefix .. 'x:' .. borrower, freed)
  for n, share in ipairs(shares) do
    redis.call('HINCRBY', application, 'x:' .. share[1], parts[n])
    redis.call('DECRBY', prefix .. 'f:' .. share[1], parts[n])
  end
end

-- What ended before a person decided waits no more; a retraction makes it wait again, from when it did.
local function end_review(prefix, application, what)
  local reviews, name = prefix .. 'reviews', string.sub(application, #prefix + 3)
  if what == 'all' or what == 'lapsed' then
    local since = redis.call('ZSCORE', reviews, name)
    if since then
      redis.call('HSET', application, 'z', since)
      redis.call('ZREM', reviews, name)
    end
  elseif what == 'none' then
    local since = redis.call('HGET', application, 'z')
    if since then
      redis.call('ZADD', reviews, since, name)
      redis.call('HDEL', application, 'z')
    end
  end
end

-- What a report gives back of an application: where it is not decided yet, what ended it is kept for then.
local function finish(prefix, application, what, decided)
  if decided then
    release(prefix, application, what)
    end_review(prefix, application, what)
  elseif what == 'all' then
    redis.call('HSET', application, 'o', what)
  elseif what == 'lapsed' then
    redis.call('HSETNX', application, 'o', what)
  elseif what == 'none' or (what == 'paid' and redis.call('HGET', application, 'o') == 'lapsed') then
    redis.call('HDEL', application, 'o')
  end
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- KEYS decision stream, reviews, meta, application keys; ARGV funders as JSON, then for each: decision, evidence,
-- reservation or '', '1' where it waits for a person, epoch:sequence that it was decided at or ''. The first decision
-- stored stays; what finds no room, or was decided on a log that the store has lost since, is not stored. What a report
-- has ended by now takes no room and waits for nobody, until that is taken back.
-- Returns {for each '' where it is stored now, the decision that was stored before, or what the borrower has now where
-- it found no room; where any did not, what each of the funders has lent now}.
local function commit(keys, args)
  local prefix, epoch = string.sub(keys[2], 1, -8), redis.call('HGET', keys[3], 'epoch')
  local replies, refused = {}, {}
  for n = 4, #keys do
    local at = 5 * n - 18
    local known = redis.call('HMGET', keys[n], 's', 'd', 'o')
    if not known[1] then
      replies[n - 3] = false
    elseif known[2] then
      replies[n - 3] = known[2]
    elseif args[at + 4] ~= '' and args[at + 4] ~= (epoch or '') .. ':' .. known[1] then
      replies[n - 3] = false
    elseif args[at + 2] ~= '' and not reserve(prefix, keys[n], args[at + 2], known[3]) then
      replies[n - 3] = 0
      refused[n - 3] = cjson.decode(args[at + 2])[1]
    else
      redis.call('HSET', keys[n], 'd', args[at], 'e', args[at + 1])
      redis.call('XADD', keys[1], '*', 'k', keys[n])
      if args[at + 3] == '1' then redis.call('ZADD', keys[2], now_ms(), string.sub(keys[n], #prefix + 3)) end
      if known[3] then finish(prefix, keys[n], known[3], true) end
      replies[n - 3] = ''
    end
  end
  for n, borrower in pairs(refused) do replies[n] = counted(prefix .. 'x:' .. borrower) end
  return {replies, next(refused) and lent(prefix, args[1]) or {}}
end

-- KEYS reviews, application key, withdrawn; ARGV hash of what is asked, resolution, reservation or '', funders as JSON,
-- applicant. What a person decided first stays; nobody decides on what a report ended, or on whom the lender has
-- forgotten since. Returns {status, resolution, time_ms}, or {REFUSED, '', 0, what the borrower has now, what each of
-- the funders has lent now}.
local function resolve(keys, args)
  local prefix = string.sub(keys[1], 1, -8)
  local known = redis.call('HMGET', keys[2], 'd', 'v', 'vh', 'vt', 'z', 'i')
  if not known[1] then return {'UNDECIDED', '', 0} end
  if known[2] then return {known[3] == args[1] and 'KNOWN' or 'CONFLICT', known[2], tonumber(known[4])} end
  if known[5] then return {'ENDED', '', 0} end
  local forgotten = tonumber(redis.call('HGET', keys[3], args[5] .. ':') or 0)
  if forgotten >= tonumber(string.match(known[6], '^%d+')) then return {'FORGOTTEN', '', 0} end
  if args[3] ~= '' and not reserve(prefix, keys[2], args[3]) then
    local borrower = cjson.decode(args[3])[1]
    return {'REFUSED', '', 0, counted(prefix .. 'x:' .. borrower), lent(prefix, args[4])}
  end
  local now = now_ms()
  local last = redis.call('HGET', prefix .. 'meta', 'sequence')
  redis.call('HSET', keys[2], 'v', args[2], 'vh', args[1], 'vt', now, 'vs', last)
  redis.call('ZREM', keys[1], string.sub(keys[2], #prefix + 3))
  return {'NEW', args[2], now}
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

-- KEYS log, meta, then for each: application key, outcome key; ARGV epoch, then for each: body hash, event, time_ms,
-- what it gives back, as `release` reads it, or ''. Returns for each {status, sequence}.
local function report(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  local replies = {}
  for n = 1, (#keys - 2) / 2 do
    local application, outcome = keys[1 + 2 * n], keys[2 + 2 * n]
    local at = 4 * n - 2
    local known = redis.call('HMGET', outcome, 'h', 's')
    local subject, decided = unpack(redis.call('HMGET', application, 's', 'd'))
    if known[1] then
      replies[n] = {known[1] == args[at] and 'KNOWN' or 'CONFLICT', tonumber(known[2])}
    elseif not subject then
      replies[n] = {'NOT_FOUND', 0}
    elseif append(keys[1], keys[2], args[at + 1], tonumber(subject), sequence + 1, args[at + 2]) then
      sequence = sequence + 1
      redis.call('HSET', outcome, 'h', args[at], 's', sequence)
      finish(string.sub(keys[2], 1, -5), application, args[at + 3], decided)
      replies[n] = {'NEW', sequence}
    else
      replies[n] = {'PAST', 0}
    end
  end
  return replies
end

-- KEYS withdrawn, profile keys, which end with whom they know; ARGV for how long after its fetch a profile is kept, ms, 0
-- for good, then a blob for each, fetch time in bytes 9 to 16. What was fetched before the applicant was forgotten, or is
-- kept no longer, does not come back. Returns for each 1 if it is the newest.
local function put_profiles(keys, args)
  local kept_ms, now, replies = tonumber(args[1]), now_ms(), {}
  for n = 1, #args - 1 do
    local key, blob = keys[n + 1], args[n + 1]
    local fetched_at_ms = struct.unpack('<i8', blob, 9)
    local least = tonumber(redis.call('HGET', keys[1], string.sub(key, -16) .. ':') or 0)
    if kept_ms > 0 then least = math.max(least, now - kept_ms) end
    local old = redis.call('GET', key)
    local newer = fetched_at_ms > least and (not old or struct.unpack('<i8', old, 9) < fetched_at_ms)
    if newer then
      redis.call('SET', key, blob)
      if kept_ms > 0 then redis.call('PEXPIREAT', key, string.format('%.0f', fetched_at_ms + kept_ms)) end
    end
    replies[n] = (newer or old == blob) and 1 or 0
  end
  return replies
end

-- A list entry is a hash: e what is proposed, x expiry in ms (0 never), t when, ms, and once approved b by whom, v in a
-- form to compare, u when, s its event's number.
-- Indexes are sorted by member: time and entry id; the waiting one holds what is not approved.

-- KEYS entry, index, waiting index; ARGV entry id, e, x. Returns when it is proposed, ms; false where x is past.
local function propose_entry(keys, args)
  local now = now_ms()
  if tonumber(args[3]) ~= 0 and tonumber(args[3]) <= now then return false end
  local time = string.format('%013.0f', now)
  redis.call('HSET', keys[1], 'e', args[2], 'x', args[3], 't', time)
  redis.call('ZADD', keys[2], 0, time .. ':' .. args[1])
  redis.call('ZADD', keys[3], 0, time .. ':' .. args[1])
  return now
end

-- KEYS log, meta, entry, waiting index; ARGV epoch, entry id, event, b, v, who proposed in the form of v.
-- Returns {status, sequence}; approving again by the same person says the same number.
local function approve_entry(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  local known = redis.call('HMGET', keys[3], 'e', 'x', 't', 'v', 's')
  if not known[1] then return {'NOT_FOUND', 0} end
  if args[6] == args[5] then return {'SAME_PERSON', 0} end
  if known[4] then return {known[4] == args[5] and 'KNOWN' or 'APPROVED', tonumber(known[5])} end
  if tonumber(known[2]) ~= 0 and tonumber(known[2]) <= now_ms() then return {'EXPIRED', 0} end
  sequence = sequence + 1
  local id = append(keys[1], keys[2], args[3], 0, sequence, '')
  redis.call('HSET', keys[3], 'b', args[4], 'v', args[5], 'u', string.match(id, '^%d+'), 's', sequence)
  redis.call('ZREM', keys[4], known[3] .. ':' .. args[2])
  return {'NEW', sequence}
end

-- KEYS indexes; ARGV member before which to look ('' for the newest), how many. Returns the members of all, newest first.
local function list_members(keys, args)
  local found = {}
  local from = args[1] == '' and '+' or ('(' .. args[1])
  for n = 1, #keys do
    for _, member in ipairs(redis.call('ZREVRANGEBYLEX', keys[n], from, '-', 'LIMIT', 0, args[2])) do
      found[#found + 1] = member
    end
  end
  table.sort(found, function(a, b) return a > b end)
  return found
end

-- KEYS entries. Returns for each {e, t, b, u}, false where there is none.
local function list_entries(keys, args)
  local replies = {}
  for n = 1, #keys do
    local known = redis.call('HMGET', keys[n], 'e', 't', 'b', 'u')
    replies[n] = known[1] and {known[1], known[2], known[3] or '', known[4] or ''}
  end
  return replies
end

-- KEYS meta; ARGV what tells one secret from another. Returns that of the first who joined.
local function join(keys, args)
  redis.call('HSETNX', keys[1], 'secret', args[1])
  return redis.call('HGET', keys[1], 'secret')
end

-- KEYS log, meta, hash of what was taken; ARGV epoch, then for each: entry id, event. Appends what was not taken before.
-- Returns for each the number that it has in this log.
local function share_entries(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  local replies = {}
  for n = 1, (#args - 1) / 2 do
    local taken = redis.call('HGET', keys[3], args[2 * n])
    if not taken then
      sequence = sequence + 1
      append(keys[1], keys[2], args[2 * n + 1], 0, sequence, '')
      redis.call('HSET', keys[3], args[2 * n], sequence)
      taken = sequence
    end
    replies[n] = tonumber(taken)
  end
  return replies
end

-- KEYS log, meta, forgotten, withdrawn, schemas, profile keys; ARGV epoch, how many schemas the request was made for, the
-- request as JSON, how many events, events, fields of withdrawn. Returns {sequence of the last event, how many profiles
-- were deleted}, or false where there is a schema more by now.
local function forget(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  if redis.call('HLEN', keys[5]) ~= tonumber(args[2]) then return false end
  local events, id = tonumber(args[4]), nil
  for n = 1, events do id = append(keys[1], keys[2], args[4 + n], 0, sequence + n, '') end
  for n = 5 + events, #args do redis.call('HSET', keys[4], args[n], string.match(id, '^%d+')) end
  local deleted = 0
  for n = 6, #keys do deleted = deleted + redis.call('DEL', keys[n]) end
  redis.call('XADD', keys[3], '*', 'request', args[3], 'sequence', sequence + events, 'profiles', deleted)
  return {sequence + events, deleted}
end

-- Write the records of requests anew, without the tokens that `numbers` has another number for: by token, {number, up to
-- which event}.
local function rename_forgotten(forgotten, new, numbers)
  for _, entry in ipairs(redis.call('XRANGE', forgotten, '-', '+')) do
    local request, sequence = entry[2][2], tonumber(entry[2][4])
    local said = string.gsub(request, '"(%x+)"', function(token)
      local known = numbers[token]
      return known and sequence < known[2] and '"' .. known[1] .. '"' or nil
    end)
    redis.call('XADD', new, entry[1], 'request', said, 'sequence', sequence, 'profiles', entry[2][6])
  end
  if redis.call('EXISTS', new) == 1 then redis.call('RENAME', new, forgotten) end
end

-- KEYS log, meta, withdrawn, forgotten, a copy of the log, a name for the log that goes, one for new records; ARGV epoch,
-- up to which event the log was changed before, up to which the copy changes it, id of the copy's last entry, how many
-- forgotten applicants it names by another number, for each token, number, up to which event and since when the token is
-- withdrawn from now on, ms; then fields of withdrawn that they need no more. Puts the copy, and what was appended since,
-- in the log's place. Returns how many events the log has.
local function replace_log(keys, args)
  local sequence = position(keys[2], args[1])
  if not sequence then return {err = 'EPOCH the log has another epoch'} end
  if (redis.call('HGET', keys[2], 'rewritten') or '0') ~= args[2] then return {err = 'the log was changed meanwhile'} end
  for _, entry in ipairs(redis.call('XRANGE', keys[1], '(' .. args[4], '+')) do
    redis.call('XADD', keys[5], entry[1], unpack(entry[2]))
  end
  if redis.call('XLEN', keys[5]) ~= sequence then return {err = 'the copy is not of the whole log'} end
  redis.call('RENAME', keys[1], keys[6])
  redis.call('RENAME', keys[5], keys[1])
  redis.call('UNLINK', keys[6])
  redis.call('HSET', keys[2], 'rewritten', args[3])
  local numbers, people = {}, tonumber(args[5])
  for n = 6, 2 + 4 * people, 4 do
    local since = tonumber(args[n + 3])  -- a request that came meanwhile is later
    if tonumber(redis.call('HGET', keys[3], args[n] .. ':') or 0) < since then
      redis.call('HSET', keys[3], args[n] .. ':', args[n + 3])
    end
    redis.call('HSET', keys[3], args[n + 1] .. ':', FOR_GOOD_MS)
    numbers[args[n]] = {args[n + 1], tonumber(args[n + 2]), since}
  end
  for n = 6 + 4 * people, #args do
    local known = redis.call('HGET', keys[3], args[n])
    if known and tonumber(known) <= numbers[string.sub(args[n], 1, 16)][3] then redis.call('HDEL', keys[3], args[n]) end
  end
  rename_forgotten(keys[4], keys[7], numbers)
  return sequence
end

redis.register_function('open_VERSION', open)
redis.register_function('replace_log_VERSION', replace_log)
redis.register_function('begin_VERSION', begin)
redis.register_function('commit_VERSION', commit)
redis.register_function('resolve_VERSION', resolve)
redis.register_function('put_challenger_VERSION', put_challenger)
redis.register_function('report_VERSION', report)
redis.register_function('put_profiles_VERSION', put_profiles)
redis.register_function('propose_entry_VERSION', propose_entry)
redis.register_function('approve_entry_VERSION', approve_entry)
redis.register_function('list_members_VERSION', list_members)
redis.register_function('list_entries_VERSION', list_entries)
redis.register_function('join_VERSION', join)
redis.register_function('share_entries_VERSION', share_entries)
redis.register_function('forget_VERSION', forget)
