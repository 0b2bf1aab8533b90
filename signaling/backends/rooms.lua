-- Rooms that several server processes share, in one hash per room: KEYS[1]. The one script.
--
-- ARGV[1] names what to do, ARGV[2] says it (MessagePack). Every call is atomic: a signal is
-- numbered, kept for replay and published in one step, or nothing of it happens.
--
-- Fields: closed (set when nobody may open it again), order (the last given), seats, ids (of the
-- members), dead (ids that ended, and when), sid:SID (the member's id), m:ID (the member), f:ID:SEQ (a
-- frame kept for replay).
-- A member: o order, s sid, k hash of its key, me its note, g its grant, n the process that has its
-- connection, a since when it is away (0: it is there), h away without having been announced, rx the
-- last id taken from it, q the last number given, lo the first frame kept, b their bytes, qn and qb
-- those queued during an absence, seen the last id it was given of each sender, gen how often its
-- frames were numbered anew, st and sb the last time that was, and where from, tk how often it changed
-- its process, tn the last number that process is known to have taken, u until when it may last.

local key = KEYS[1]
local a = cmsgpack.unpack(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local members = {}
local PEER = '{"type":"peer","seq":'
local DEAD_FOR, DEAD_MAX = 300000, 64
local UNTAKEN = 8

local function field(name)
  local packed = redis.call('HGET', key, name)
  if packed then return cmsgpack.unpack(packed) end
end

local function member(id)
  if members[id] == nil then members[id] = field('m:' .. id) or false end
  return members[id] or nil
end

local function save(id, m)
  members[id] = m
  redis.call('HSET', key, 'm:' .. id, cmsgpack.pack(m))
end

local function ids() return field('ids') or {} end

local function save_ids(list) redis.call('HSET', key, 'ids', cmsgpack.pack(list)) end

local function publish(node, what) redis.call('PUBLISH', a.channel .. node, cmsgpack.pack(what)) end

local function frame_size(f) return #f[3] + #f[4] + 8 end

local function drop_oldest(id, m)
  local name = 'f:' .. id .. ':' .. m.lo
  local f = field(name)
  if f then
    m.b = m.b - frame_size(f)
    redis.call('HDEL', key, name)
  end
  m.lo = m.lo + 1
  m.qn = math.min(m.qn, m.q - m.lo + 1)
  m.qb = math.min(m.qb, m.b)
end

-- Number a frame for a member, keep it and publish it. The caller has not saved the member.
local function post(id, m, src, n, head, tail)
  m.q = m.q + 1
  local f = {src, n, head, tail}
  redis.call('HSET', key, 'f:' .. id .. ':' .. m.q, cmsgpack.pack(f))
  m.b = m.b + frame_size(f)
  if m.a ~= 0 then
    m.qn = m.qn + 1
    m.qb = m.qb + frame_size(f)
  else
    -- What its process has not taken yet is nowhere else.
    while m.lo <= m.tn and (m.q - m.lo + 1 > a.messages + m.qn or m.b > a.bytes + m.qb) do
      drop_oldest(id, m)
    end
  end
  if n > 0 then m.seen[src] = n end
  save(id, m)
  publish(m.n, {'f', id, m.q, m.gen, src, n, head, tail})
end

local finish

-- Tell all others, but those whose connections the process `but` has.
local function announce(id, order, event, meta, reason, but)
  local tail = ',"event":"' .. event .. '","id":"' .. id .. '","order":' .. order
  if meta ~= '' then tail = tail .. ',"meta":' .. meta end
  if reason ~= '' then tail = tail .. ',"reason":"' .. reason .. '"' end
  tail = tail .. '}'
  local overflowed = {}
  for _, other in ipairs(ids()) do
    local m = other ~= id and member(other)
    if m then
      if event == 'leave' then m.seen[id] = nil end
      if but and m.n == but then
        save(other, m)
      else
        post(other, m, '', 0, PEER, tail)
        if m.a ~= 0 and m.qn > 2 * a.messages then table.insert(overflowed, other) end
      end
    end
  end
  for _, other in ipairs(overflowed) do
    if member(other) then finish(other, 'overflow') end
  end
end

finish = function(id, reason, but)
  local m = member(id)
  local left = {}
  for _, other in ipairs(ids()) do
    if other ~= id then table.insert(left, other) end
  end
  if m.n ~= a.node or ARGV[1] ~= 'end' then publish(m.n, {'g', id, reason}) end
  if reason == 'closed' then redis.call('HSET', key, 'closed', 1) end
  if #left == 0 then
    local closed = redis.call('HEXISTS', key, 'closed') == 1
    redis.call('DEL', key)
    if closed then
      redis.call('HSET', key, 'closed', 1)
      redis.call('PEXPIRE', key, a.closed_for)
    end
    members = {}
    return
  end
  save_ids(left)
  redis.call('HDEL', key, 'm:' .. id, 'sid:' .. m.s)
  for seq = m.lo, m.q do redis.call('HDEL', key, 'f:' .. id .. ':' .. seq) end
  members[id] = false
  local dead = field('dead') or {}
  local count = 0
  for other, at in pairs(dead) do
    count = count + 1
    if now - at > DEAD_FOR or count >= DEAD_MAX then dead[other] = nil end
  end
  dead[id] = now
  redis.call('HSET', key, 'dead', cmsgpack.pack(dead))
  announce(id, m.o, 'leave', '', reason, but)
end

local function acknowledge(id, m, seq)
  while m.lo <= m.q and m.lo <= seq do drop_oldest(id, m) end
end

local function frames(id, m, after)
  local list = {}
  for seq = math.max(after + 1, m.lo), m.q do
    local f = field('f:' .. id .. ':' .. seq)
    if f then table.insert(list, {seq, f[1], f[2], f[3], f[4]}) end
  end
  return list
end

local function snapshot(but)
  local list = {}
  for _, id in ipairs(ids()) do
    local m = id ~= but and member(id)
    if m then table.insert(list, {id, m.o, m.me, m.a ~= 0, m.n}) end
  end
  return list
end

local function live() redis.call('PEXPIRE', key, a.ttl) end

local ops = {}

function ops.enter()
  local list = ids()
  if #list == 0 and redis.call('HEXISTS', key, 'closed') == 1 then return {'closed'} end
  local seats = tonumber(redis.call('HGET', key, 'seats') or a.seats)
  if #list >= seats then
    local longest, since
    for _, id in ipairs(list) do
      local m = member(id)
      if m.a ~= 0 and (not since or m.a < since) then longest, since = id, m.a end
    end
    if not longest then return {'full', seats} end
    if now < since + a.grace then return {'wait', since + a.grace - now} end
    finish(longest, 'unseated')
    list = ids()
    seats = tonumber(redis.call('HGET', key, 'seats') or a.seats)
  end
  redis.call('HSETNX', key, 'seats', seats)
  local order = redis.call('HINCRBY', key, 'order', 1)
  table.insert(list, a.id)
  save_ids(list)
  redis.call('HSET', key, 'sid:' .. a.sid, a.id)
  save(a.id, {
    o = order, s = a.sid, k = a.key, me = a.meta, g = a.grant, n = a.node, a = 0, h = 0, rx = 0, q = 0,
    lo = 1, b = 0, qn = 0, qb = 0, seen = {}, gen = 0, tk = 0, tn = 0, st = '', sb = 0,
    u = now + a.lifetime,
  })
  live()
  local peers = snapshot(a.id)
  announce(a.id, order, 'join', a.meta_json, '')
  return {'ok', order, seats, peers}
end

function ops.resume()
  local id = redis.call('HGET', key, 'sid:' .. a.sid)
  local m = id and member(id)
  if not m or m.k ~= a.key then return {'unknown'} end
  if a.seq < m.lo - 1 or a.seq > m.q then
    finish(id, 'gap')
    return {'unknown'}
  end
  acknowledge(id, m, a.seq)
  m.tk = m.tk + 1
  if m.n ~= a.node then publish(m.n, {'t', id, m.tk}) end
  local announced = m.a ~= 0 and m.h == 0
  m.n, m.a, m.h, m.tn = a.node, 0, 0, m.q
  save(id, m)
  live()
  local kept = frames(id, m, a.seq)
  local peers = snapshot(id)
  local order = tonumber(redis.call('HGET', key, 'order'))
  local seats = tonumber(redis.call('HGET', key, 'seats'))
  if announced then announce(id, m.o, 'back', '', '') end
  return {'ok', id, m.o, m.rx, m.me, m.g, m.gen, kept, peers, order, seats, m.seen, m.tk,
    (m.u or now + a.lifetime) - now}
end

function ops.relay()
  local s = member(a.id)
  if not s or s.n ~= a.node then return {'gone'} end
  if a.again == 0 and a.n <= s.rx then return {'duplicate'} end
  s.rx = math.max(s.rx, a.n)
  local t = a.to ~= a.id and member(a.to)
  local refusal
  if not t then
    refusal = 'unavailable'
  elseif (t.seen[a.id] or 0) >= a.n then
    save(a.id, s)
    return {'duplicate'}
  elseif t.a ~= 0 and (t.qn >= a.messages or t.qb + #a.tail > a.bytes) then
    refusal = 'queue_full'
  elseif t.a == 0 and t.q - t.tn >= UNTAKEN * a.messages then
    refusal = 'queue_full'
  end
  if refusal then
    if a.quiet == 0 and (s.seen[a.id] or 0) < a.n then
      post(a.id, s, a.id, a.n, a.refusals[refusal][1], a.refusals[refusal][2])
    else
      save(a.id, s)
    end
    return {refusal}
  end
  save(a.id, s)
  local away = t.a ~= 0
  post(a.to, t, a.id, a.n, a.head, a.tail)
  return {away and 'queued' or 'delivered'}
end

function ops.post()
  local m = member(a.id)
  if not m or m.n ~= a.node then return {'gone'} end
  m.rx = math.max(m.rx, a.n)
  if (m.seen[a.id] or 0) < a.n then
    post(a.id, m, a.id, a.n, a.head, a.tail)
  else
    save(a.id, m)
  end
  return {'ok'}
end

function ops.ack()
  local m = member(a.id)
  if m and m.n == a.node then
    m.tn = math.max(m.tn, a.taken)
    acknowledge(a.id, m, a.seq)
    save(a.id, m)
  end
  return {'ok'}
end

function ops.away()
  local m = member(a.id)
  if m and m.n == a.node and m.a == 0 then
    m.a, m.h = now, a.quiet
    save(a.id, m)
    if a.quiet == 0 then announce(a.id, m.o, 'away', '', '') end
  end
  return {'ok'}
end

-- The end of a session; `but` is set where its neighbours in that process have heard of it.
ops['end'] = function()
  local m = member(a.id)
  if m and m.n == a.node and (a.reason ~= 'expired' or m.a ~= 0) then
    finish(a.id, a.reason, a.told == 1 and a.node or nil)
  end
  return {'ok'}
end

function ops.read()
  local m = member(a.id)
  if not m or m.n ~= a.node then return {'gone'} end
  if a.after < m.lo - 1 then return {'lost'} end
  return {'ok', m.gen, frames(a.id, m, a.after)}
end

-- Look after a room: sessions of processes that died are away, sessions away too long end.
function ops.sweep()
  local mine, here, dead, nodes, numbers = {}, {}, {}, {}, {}
  for _, id in ipairs(a.mine) do mine[id] = true end
  for _, id in ipairs(a.here) do here[id] = true end
  for _, node in ipairs(a.dead) do dead[node] = true end
  for _, id in ipairs(ids()) do
    local m = member(id)
    if m and m.a == 0 and (dead[m.n] or (m.n == a.node and not mine[id])) then
      m.a, m.h = now, 0
      save(id, m)
      announce(id, m.o, 'away', '', '')
    elseif m and m.a ~= 0 and m.n == a.node and here[id] then
      -- Others took its process for dead.
      local announced = m.h == 0
      m.a, m.h = 0, 0
      save(id, m)
      if announced then announce(id, m.o, 'back', '', '') end
    elseif m and m.a ~= 0 and now - m.a >= a.window then
      finish(id, 'expired')
    end
  end
  for _, id in ipairs(ids()) do
    local m = member(id)
    nodes[m.n] = true
    if m.n == a.node then numbers[id] = m.q end
  end
  if #ids() > 0 then live() end
  local list = {}
  for node in pairs(nodes) do table.insert(list, node) end
  return {'ok', list, numbers}
end

-- A process that was cut off brings back what it did meanwhile for a session of its own. What others
-- queued for the session meanwhile is numbered after that.
function ops.sync()
  local dead = field('dead') or {}
  local m = member(a.id)
  if dead[a.id] or (m and m.n ~= a.node and m.tk >= a.tk) then return {'gone'} end
  if m and m.n ~= a.node then
    -- A process that had not heard where the session went brought it back first.
    publish(m.n, {'t', a.id, a.tk})
    m.n, m.tk, m.st = a.node, a.tk, ''
  end
  redis.call('HSETNX', key, 'seats', a.seats)
  local order = tonumber(redis.call('HGET', key, 'order') or 0)
  redis.call('HSET', key, 'order', math.max(order, a.last_order))
  local pending, was = {}, 0
  if m then
    local base = a.base
    if m.st == a.token then base = m.sb end
    if m.lo - 1 > base then
      finish(a.id, 'gap')
      return {'gone'}
    end
    was = m.a
    for _, f in ipairs(frames(a.id, m, base)) do
      if f[3] == 0 or (a.seen[f[2]] or 0) < f[3] then table.insert(pending, f) end
    end
    for seq = m.lo, m.q do
      if seq > base or seq < a.lo then redis.call('HDEL', key, 'f:' .. a.id .. ':' .. seq) end
    end
    for src, n in pairs(a.seen) do m.seen[src] = math.max(m.seen[src] or 0, n) end
    m.rx = math.max(m.rx, a.rx)
  else
    local list = ids()
    table.insert(list, a.id)
    save_ids(list)
    redis.call('HSET', key, 'sid:' .. a.sid, a.id)
    m = {
      o = a.order, s = a.sid, k = a.key, me = a.meta, g = a.grant, n = a.node, h = 0, rx = a.rx,
      seen = a.seen, gen = 0, tk = a.tk, a = a.away, u = now + a.left,
    }
    if a.away ~= 0 then m.a = now - a.away end
    was = m.a
  end
  m.q, m.lo, m.b, m.qn, m.qb = a.seq, a.lo, 0, 0, 0
  m.st, m.sb, m.tn, m.gen = a.token, a.seq, a.seq, m.gen + 1
  for _, f in ipairs(a.frames) do
    if f[1] >= a.lo then
      redis.call('HSET', key, 'f:' .. a.id .. ':' .. f[1], cmsgpack.pack({f[2], f[3], f[4], f[5]}))
    end
  end
  for seq = m.lo, m.q do
    local f = field('f:' .. a.id .. ':' .. seq)
    if f then
      m.b = m.b + frame_size(f)
    else
      m.lo, m.b = seq + 1, 0
    end
  end
  if a.away ~= 0 then
    m.qn, m.qb = m.q - m.lo + 1, m.b
    if m.a == 0 then m.a = now - a.away end
  else
    m.a = 0
  end
  save(a.id, m)
  local gen = m.gen
  live()
  for _, f in ipairs(pending) do post(a.id, m, f[2], f[3], f[4], f[5]) end
  -- Its neighbours in that process know that it went; that it came back nobody does.
  if was == 0 and m.a ~= 0 then
    announce(a.id, m.o, 'away', '', '', a.node)
  elseif was ~= 0 and m.a == 0 then
    announce(a.id, m.o, 'back', '', '')
  end
  return {'ok', gen}
end

return cmsgpack.pack(ops[ARGV[1]]())
