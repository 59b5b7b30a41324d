-- Facts of one session as a join: any operation may be repeated, reordered or concurrent, the set is the same.
-- KEYS[1] = f:{sid}; ARGV = max_age_s, then operations one after the other:
--   v ev closes body    a VAD event; `closes` = the ordinal that it closes without an outcome to wait for, or -1
--   o k slot seq body   an outcome; the lowest stream sequence wins
--   p k end body        a partial; the newest (k, end) wins, none once ordinal k has its outcome
--   w epoch channel     who listens; the highest epoch wins
--   t ev k              forget what lies below: the client has it
-- Hash: v:<ev> = body, o:<k>:<slot> = seq|body, p = k|end|body, lo = ev.k, w = epoch|channel.
-- Returns how many operations changed something; a `w` counts when it stands afterwards.
-- Mirrored by services.ingress.merge.Facts; tests/integration/test_commit_lua.py holds the two together.

local SLOTS = {'asr', 'verify', 'label'}
local INLINE = 16   -- facts in one wake; a reconcile's flood becomes one bare wake instead

local key = KEYS[1]
local sid = string.sub(key, 4, -2)
local held = redis.call('HMGET', key, 'lo', 'w', 'p')
local lo_ev, lo_k = string.match(held[1] or '0.0', '^(%d+)%.(%d+)$')
lo_ev, lo_k = tonumber(lo_ev), tonumber(lo_k)
local epoch, channel = string.match(held[2] or '', '^(%d+)|(.*)$')
epoch = tonumber(epoch)
local p_k, p_end = string.match(held[3] or '', '^(%d+)|(%d+)|')
p_k, p_end = tonumber(p_k), tonumber(p_end)

local changed, wake, news = 0, false, {}

local function set(field, value)
  redis.call('HSET', key, field, value)
  news[#news + 1] = field
  news[#news + 1] = value
end

local function forget_partial(upto)
  if p_k and p_k <= upto then
    redis.call('HDEL', key, 'p')
    p_k, p_end = nil, nil
  end
end

local function outcome(k, slot, seq, body)
  if tonumber(k) < lo_k then return false end
  local field = 'o:' .. k .. ':' .. slot
  local old = redis.call('HGET', key, field)
  if old and tonumber(string.match(old, '^(%d+)|')) <= tonumber(seq) then return false end
  set(field, seq .. '|' .. body)
  if slot == 'asr' then forget_partial(tonumber(k)) end
  return true
end

local function event(ev, closes, body)
  local new = false
  if tonumber(ev) >= lo_ev and redis.call('HEXISTS', key, 'v:' .. ev) == 0 then
    set('v:' .. ev, body)
    new = true
  end
  -- Not tied to `ev`: a trim between two repetitions must not decide whether the outcome is there.
  if closes ~= '-1' and outcome(closes, 'asr', '0', '') then new = true end
  return new
end

local function partial(k, stop, body)
  local nk, nstop = tonumber(k), tonumber(stop)
  if nk < lo_k or redis.call('HEXISTS', key, 'o:' .. k .. ':asr') == 1 then return false end
  if p_k and (nk < p_k or (nk == p_k and nstop <= p_end)) then return false end
  set('p', k .. '|' .. stop .. '|' .. body)
  p_k, p_end = nk, nstop
  return true
end

local function register(new, to)
  local n = tonumber(new)
  if not epoch or n > epoch then
    redis.call('HSET', key, 'w', new .. '|' .. to)
    if epoch then redis.call('PUBLISH', channel, cmsgpack.pack({sid, n, {}})) end   -- it was superseded
    epoch, channel = n, to
  end
  return epoch == n and channel == to
end

local function below(field)
  local k = string.match(field, '^o:(%d+):')
  local ev = string.match(field, '^v:(%d+)$')
  return (k and tonumber(k) < lo_k) or (ev and tonumber(ev) < lo_ev)
end

local function trim(ev, k)
  local old_ev, old_k = lo_ev, lo_k
  lo_ev, lo_k = math.max(lo_ev, tonumber(ev)), math.max(lo_k, tonumber(k))
  if lo_ev == old_ev and lo_k == old_k then return false end
  redis.call('HSET', key, 'lo', string.format('%.0f.%.0f', lo_ev, lo_k))
  forget_partial(lo_k - 1)
  if (lo_ev - old_ev) + (lo_k - old_k) <= redis.call('HLEN', key) then
    for n = old_ev, lo_ev - 1 do redis.call('HDEL', key, string.format('v:%.0f', n)) end
    for n = old_k, lo_k - 1 do
      for _, slot in ipairs(SLOTS) do redis.call('HDEL', key, string.format('o:%.0f:%s', n, slot)) end
    end
  else   -- a long way after a wipe: look at what is there instead
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if below(field) then redis.call('HDEL', key, field) end
    end
  end
  return true
end

local i = 2
while i <= #ARGV do
  local op, ok = ARGV[i], false
  if op == 'v' then
    ok, wake, i = event(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]), true, i + 4
  elseif op == 'o' then
    ok, wake, i = outcome(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]), true, i + 5
  elseif op == 'p' then
    ok, i = partial(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]), i + 4
    wake = wake or ok   -- a refused draft is news to nobody
  elseif op == 'w' then
    ok, i = register(ARGV[i + 1], ARGV[i + 2]), i + 3
  elseif op == 't' then
    ok, i = trim(ARGV[i + 1], ARGV[i + 2]), i + 3
  else
    return redis.error_reply('ERR commit: unknown operation')
  end
  if ok then changed = changed + 1 end
end
redis.call('EXPIRE', key, ARGV[1])

-- A repeated fact wakes as well (its first wake may have been lost), bare: the listener reads what it lacks.
if wake then
  if not channel then
    redis.call('PUBLISH', 'w:orphans', sid)   -- wiped: whoever holds the session repairs it at once
  else
    if #news > 2 * INLINE then news = {} end
    redis.call('PUBLISH', channel, cmsgpack.pack({sid, epoch, news}))
  end
end
return changed
