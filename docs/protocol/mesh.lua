-- Wireshark and tshark (4.0 or later): the MESH family in BGP, as docs/protocol/mesh.md has it.
--
--   tshark -X lua_script:docs/protocol/mesh.lua -r capture.pcap -O bgpmesh
--   wireshark -X lua_script:docs/protocol/mesh.lua capture.pcap
--
-- It takes TCP port 179 over, cuts the stream into messages and hands each to the built-in
-- dissector of BGP, but for two sorts that it decodes itself: UPDATEs with MESH routes, whose
-- next hop the built-in one would call malformed before it stopped at the routes, and messages
-- of more than 4096 octets (RFC 8654), which the built-in one of 4.0 refuses.
-- BGP on another port: -d tcp.port==PORT,bgpmesh. Inside a tunnel's TLS there is nothing to see.

local mesh = Proto("bgpmesh", "Border Gateway Protocol with MESH routes")

mesh.prefs.afi = Pref.uint("AFI", 16397, "Address family identifier of MESH")
mesh.prefs.safi = Pref.uint("SAFI", 244, "Subsequent address family identifier of MESH")
mesh.prefs.facts = Pref.uint("Facts", 244, "Type code of the attribute with static facts")
mesh.prefs.add_path = Pref.bool("ADD-PATH", false, "A path identifier stands before each route")

local TYPES = {
  [1] = "Site", [2] = "Service at site", [3] = "Endpoint",
  [4] = "HTTP route", [5] = "Policy reference", [6] = "Link",
}
local STATES = {
  [0] = "unknown", [1] = "healthy", [2] = "degraded", [3] = "draining",
  [4] = "maintenance", [5] = "unhealthy", [6] = "withdrawn",
}
local PATHS = { [1] = "exact", [2] = "prefix", [3] = "regex", [4] = "digest" }
local PROTOCOLS = { [6] = "TCP", [17] = "UDP" }
local ACTIONS = { [0] = "withdraw", [1] = "announce" }
local ORIGINS = { [0] = "IGP", [1] = "EGP", [2] = "INCOMPLETE" }
local SEGMENTS = { [1] = "set", [2] = "sequence", [3] = "confed sequence", [4] = "confed set" }
local ATTRIBUTES = {
  [1] = "ORIGIN", [2] = "AS_PATH", [3] = "NEXT_HOP", [4] = "MULTI_EXIT_DISC",
  [5] = "LOCAL_PREF", [6] = "ATOMIC_AGGREGATE", [7] = "AGGREGATOR", [8] = "COMMUNITIES",
  [9] = "ORIGINATOR_ID", [10] = "CLUSTER_LIST", [14] = "MP_REACH_NLRI", [15] = "MP_UNREACH_NLRI",
  [16] = "EXTENDED_COMMUNITIES", [32] = "LARGE_COMMUNITIES",
  [244] = "FACTS",
}
local CLASSES = {
  [0] = "internet", [1] = "backbone", [2] = "direct", [3] = "peering", [4] = "transit",
}
local FACTS = { [1] = "zone", [2] = "protocols", [3] = "identity" }

local HEADER = 19
local MARKER = ("\255"):rep(16)
local BUILT_IN_MAX = 4096
local UPDATE = 2
local MAX_KEY = 512
local RD = 8

local f = {
  length = ProtoField.uint16("bgpmesh.length", "Length"),
  kind = ProtoField.uint8("bgpmesh.message", "Message type"),
  octets = ProtoField.bytes("bgpmesh.octets", "Octets"),
  withdrawn_length = ProtoField.uint16("bgpmesh.withdrawn_length", "Withdrawn routes length"),
  attributes_length = ProtoField.uint16("bgpmesh.attributes_length", "Attributes length"),
  attribute = ProtoField.none("bgpmesh.attribute", "Attribute"),
  attribute_flags = ProtoField.uint8("bgpmesh.attribute.flags", "Flags", base.HEX),
  attribute_code = ProtoField.uint8("bgpmesh.attribute.code", "Type code", base.DEC, ATTRIBUTES),
  attribute_length = ProtoField.uint16("bgpmesh.attribute.length", "Length"),
  origin = ProtoField.uint8("bgpmesh.origin", "Origin", base.DEC, ORIGINS),
  segment = ProtoField.string("bgpmesh.as_path", "AS path segment"),
  med = ProtoField.uint32("bgpmesh.med", "Multiple exit discriminator"),
  local_pref = ProtoField.uint32("bgpmesh.local_pref", "Local preference"),
  originator = ProtoField.ipv4("bgpmesh.originator", "Originator (node id)"),
  cluster = ProtoField.ipv4("bgpmesh.cluster", "Cluster (node id)"),
  target = ProtoField.string("bgpmesh.route_target", "Route target (tenant:selector)"),
  community = ProtoField.bytes("bgpmesh.community", "Extended community"),
  afi = ProtoField.uint16("bgpmesh.afi", "Address family identifier"),
  safi = ProtoField.uint8("bgpmesh.safi", "Subsequent address family identifier"),
  end_of_rib = ProtoField.bool("bgpmesh.end_of_rib", "End-of-RIB"),
  next_hop = ProtoField.ipv4("bgpmesh.next_hop", "Next hop (node id)"),
  route = ProtoField.none("bgpmesh.route", "Route"),
  summary = ProtoField.string("bgpmesh.summary", "In words"),
  path_id = ProtoField.uint32("bgpmesh.path_id", "Path identifier"),
  action = ProtoField.uint8("bgpmesh.action", "Action", base.DEC, ACTIONS),
  type = ProtoField.uint8("bgpmesh.type", "Route type", base.DEC, TYPES),
  key_length = ProtoField.uint16("bgpmesh.key_length", "Key length"),
  value_length = ProtoField.uint8("bgpmesh.value_length", "Value length"),
  key = ProtoField.bytes("bgpmesh.key", "Key"),
  rd = ProtoField.string("bgpmesh.rd", "Route distinguisher"),
  rd_type = ProtoField.uint16("bgpmesh.rd.type", "RD type"),
  rd_site = ProtoField.uint32("bgpmesh.rd.site", "RD site"),
  rd_slot = ProtoField.uint16("bgpmesh.rd.slot", "RD slot"),
  site = ProtoField.uint32("bgpmesh.site", "Site"),
  service = ProtoField.uint64("bgpmesh.service", "Service", base.HEX),
  network = ProtoField.uint16("bgpmesh.network", "Network"),
  address_length = ProtoField.uint8("bgpmesh.address_length", "Address length"),
  ipv4 = ProtoField.ipv4("bgpmesh.address.ipv4", "Address"),
  ipv6 = ProtoField.ipv6("bgpmesh.address.ipv6", "Address"),
  port = ProtoField.uint16("bgpmesh.port", "Port"),
  protocol = ProtoField.uint8("bgpmesh.protocol", "Protocol", base.DEC, PROTOCOLS),
  lb = ProtoField.uint64("bgpmesh.lb", "Load balancer", base.HEX),
  host_length = ProtoField.uint8("bgpmesh.host_length", "Host length"),
  host = ProtoField.string("bgpmesh.host", "Host"),
  path_kind = ProtoField.uint8("bgpmesh.path.kind", "Path kind", base.DEC, PATHS),
  path_length = ProtoField.uint16("bgpmesh.path_length", "Path length"),
  path = ProtoField.string("bgpmesh.path", "Path", base.UNICODE),
  path_digest = ProtoField.bytes("bgpmesh.path.digest", "Path digest"),
  set = ProtoField.bytes("bgpmesh.set", "Policy set"),
  from = ProtoField.uint32("bgpmesh.link.from", "Site a"),
  to = ProtoField.uint32("bgpmesh.link.to", "Site b"),
  tunnel = ProtoField.uint32("bgpmesh.tunnel", "Tunnel"),
  body = ProtoField.bytes("bgpmesh.body", "Key after the RD"),
  value = ProtoField.bytes("bgpmesh.value", "Value"),
  version = ProtoField.uint8("bgpmesh.version", "Version", base.DEC, nil, 0xF0),
  state = ProtoField.uint8("bgpmesh.state", "State", base.DEC, STATES, 0x0F),
  flags = ProtoField.uint8("bgpmesh.flags", "Flags", base.HEX),
  load = ProtoField.uint16("bgpmesh.load", "Load (1/65535)"),
  load8 = ProtoField.uint8("bgpmesh.load8", "Load (1/255)"),
  capacity = ProtoField.uint32("bgpmesh.capacity", "Capacity (requests/s; of a Service at a time)"),
  reserved = ProtoField.bytes("bgpmesh.reserved", "Reserved"),
  healthy = ProtoField.uint32("bgpmesh.healthy", "Healthy endpoints"),
  total = ProtoField.uint32("bgpmesh.total", "Endpoints"),
  weights = ProtoField.uint32("bgpmesh.weights", "Sum of weights"),
  weight = ProtoField.uint8("bgpmesh.weight", "Weight"),
  rtt = ProtoField.uint32("bgpmesh.rtt", "Round trip (µs)"),
  jitter = ProtoField.uint32("bgpmesh.jitter", "Jitter (µs)"),
  loss = ProtoField.uint16("bgpmesh.loss", "Loss (1/65535)"),
  bandwidth = ProtoField.uint32("bgpmesh.bandwidth", "Bandwidth (kbit/s)"),
  class = ProtoField.uint8("bgpmesh.link.class", "Class", base.DEC, CLASSES),
  cost = ProtoField.uint16("bgpmesh.link.cost", "Cost"),
  priority = ProtoField.uint16("bgpmesh.priority", "Priority"),
  policy = ProtoField.bytes("bgpmesh.policy", "Policy set"),
  revision = ProtoField.uint64("bgpmesh.revision", "Revision"),
  urgency = ProtoField.uint8("bgpmesh.urgency", "Urgency"),
  digest = ProtoField.bytes("bgpmesh.digest", "Digest of the body"),
  seq = ProtoField.uint32("bgpmesh.seq", "Seq"),
  trailing = ProtoField.bytes("bgpmesh.trailing", "Trailing octets"),
  facts = ProtoField.none("bgpmesh.facts", "Facts"),
  fact_type = ProtoField.uint8("bgpmesh.facts.type", "Type", base.DEC, FACTS),
  fact_length = ProtoField.uint16("bgpmesh.facts.length", "Length"),
  zone = ProtoField.string("bgpmesh.facts.zone", "Zone", base.UNICODE),
  alpn = ProtoField.string("bgpmesh.facts.protocol", "Protocol", base.UNICODE),
  identity = ProtoField.bytes("bgpmesh.facts.identity", "Identity (SHA-256)"),
  fact = ProtoField.bytes("bgpmesh.facts.unknown", "Unknown fact"),
}
mesh.fields = f

local e = {
  overrun = ProtoExpert.new("bgpmesh.overrun", "Lengths run over the end: the family is disabled",
    expert.group.PROTOCOL, expert.severity.ERROR),
  bad_key = ProtoExpert.new("bgpmesh.bad_key", "Bad key: the route is ignored",
    expert.group.PROTOCOL, expert.severity.WARN),
  bad_value = ProtoExpert.new("bgpmesh.bad_value", "Bad value: the route is treated as withdrawn",
    expert.group.PROTOCOL, expert.severity.WARN),
  bad_message = ProtoExpert.new("bgpmesh.bad_message", "The lengths of the UPDATE disagree",
    expert.group.PROTOCOL, expert.severity.ERROR),
  bad_attribute = ProtoExpert.new("bgpmesh.bad_attribute", "Malformed attribute",
    expert.group.PROTOCOL, expert.severity.WARN),
  bad_facts = ProtoExpert.new("bgpmesh.bad_facts", "Malformed facts: none of them counts",
    expert.group.PROTOCOL, expert.severity.WARN),
}
mesh.experts = e

-- A position in a range. Every reader checks what is left and gives nil instead of failing.
local Cursor = {}
Cursor.__index = Cursor

local function cursor(range)
  return setmetatable({ range = range, at = 0, length = range and range:len() or 0 }, Cursor)
end

function Cursor:left() return self.length - self.at end

-- The next n octets (n > 0).
function Cursor:take(n)
  if n < 1 or self:left() < n then return nil end
  local range = self.range(self.at, n)
  self.at = self.at + n
  return range
end

-- A cursor over the next n octets (n >= 0).
function Cursor:sub(n)
  if self:left() < n then return nil end
  return cursor(self:take(n))
end

function Cursor:rest() return self:take(self:left()) end

-- Fields by their width. Each adds itself and gives what to say of it, or nil at the end.
local function plain(field, width, show)
  return function(tree, c)
    local octets = c:take(width)
    if not octets then return nil end
    tree:add(field, octets)
    return show and show(octets) or ""
  end
end

local function number(octets) return tostring(octets:uint()) end
local function hex(octets) return tostring(octets:bytes()):lower() end

-- 12 bits of mantissa and 4 of exponent.
local function measure(field)
  return function(tree, c)
    local octets = c:take(2)
    if not octets then return nil end
    local bits = octets:uint()
    local quantity = bit.lshift(bit.rshift(bits, 4), bit.band(bits, 15))
    tree:add(field, octets, quantity)
    return tostring(quantity)
  end
end

-- Reads fields in order; gives their words, or nil if the octets end too early.
local function read(tree, c, readers)
  local words = {}
  for i, reader in ipairs(readers) do
    local word = reader(tree, c)
    if not word then return nil end
    words[i] = word
  end
  return words
end

local function address(tree, c)
  local length = c:take(1)
  if not length then return nil end
  tree:add(f.address_length, length)
  if length:uint() == 4 then
    return plain(f.ipv4, 4, function(o) return tostring(o:ipv4()) end)(tree, c)
  elseif length:uint() == 16 then
    return plain(f.ipv6, 16, function(o) return tostring(o:ipv6()) end)(tree, c)
  end
  return nil
end

local function text(field, octets, tree, encoding)
  if not octets then
    tree:add(field, "")
    return ""
  end
  tree:add_packet_field(field, octets, encoding)
  return octets:string(encoding)
end

local function host(tree, c)
  local length = c:take(1)
  if not length or c:left() < length:uint() then return nil end
  tree:add(f.host_length, length)
  local octets = c:take(length:uint())
  local name = text(f.host, octets, tree, ENC_ASCII)
  if name:find("[^!-~]") or name:find("%u") or name:sub(-1) == "." then return nil end
  return name == "" and "*" or name
end

local function path(tree, c)
  local kind, length = c:take(1), c:take(2)
  if not length or c:left() < length:uint() then return nil end
  tree:add(f.path_kind, kind)
  tree:add(f.path_length, length)
  local what, n = PATHS[kind:uint()], length:uint()
  local octets = c:take(n)
  if what == "digest" then
    if n ~= 32 then return nil end
    tree:add(f.path_digest, octets)
    return "digest " .. hex(octets)
  end
  if not what or n > 200 then return nil end
  return what .. " " .. text(f.path, octets, tree, ENC_UTF_8)
end

local service = plain(f.service, 8, hex)
local site = plain(f.site, 4, number)
local seq = plain(f.seq, 4)

-- What follows the RD, and how to say it.
local KEYS = {
  [1] = { { site }, "site %s" },
  [2] = { { service, site }, "service %s site %s" },
  [3] = {
    { service, site, plain(f.network, 2, number), address, plain(f.port, 2, number),
      plain(f.protocol, 1, number) },
    "endpoint of service %s site %s network %s address %s port %s/%s",
  },
  [4] = { { plain(f.lb, 8, hex), host, path }, "http of lb %s host %s path %s" },
  [5] = { { plain(f.set, 16, hex) }, "policy %s" },
  [6] = {
    { plain(f.from, 4, number), plain(f.to, 4, number), plain(f.tunnel, 4, number) },
    "link %s to %s tunnel %s",
  },
}

-- What follows the head.
local VALUES = {
  [1] = { plain(f.load, 2), measure(f.capacity), plain(f.reserved, 2), seq },
  [2] = {
    plain(f.load, 2), plain(f.healthy, 4), plain(f.total, 4), plain(f.weights, 4),
    measure(f.rtt), measure(f.capacity), seq,
  },
  [3] = { plain(f.weight, 1), plain(f.load8, 1), measure(f.rtt), measure(f.capacity), seq },
  [4] = { plain(f.priority, 2), service, plain(f.policy, 16), plain(f.revision, 8), seq },
  [5] = {
    plain(f.urgency, 1), plain(f.reserved, 1), plain(f.revision, 8), plain(f.digest, 32), seq,
  },
  [6] = {
    measure(f.rtt), measure(f.jitter), plain(f.loss, 2), plain(f.bandwidth, 4), seq,
  },
}

-- What may follow, one after the other, each of it whole or not at all: how many octets, and which.
local MORE = {
  [6] = {
    { 4, { plain(f.class, 1), plain(f.reserved, 1), plain(f.cost, 2) } },
    { 2, { plain(f.load, 2) } },
  },
}

-- Gives the key in words, or nil if it is bad.
local function dissect_key(tree, kind, range)
  if not range or range:len() < RD or range:len() > MAX_KEY then return nil end
  local c = cursor(range)
  local octets = c:take(RD)
  local of_site, slot = octets(2, 4), octets(6, 2)
  local name = of_site:uint() .. ":" .. slot:uint()
  local rd = tree:add(f.rd, octets, name)
  rd:add(f.rd_type, octets(0, 2))
  rd:add(f.rd_site, of_site)
  rd:add(f.rd_slot, slot)
  if octets(0, 2):uint() ~= 1 then return nil end
  local known = KEYS[kind]
  if not known then
    local body = c:rest()
    if body then tree:add(f.body, body) end
    return "type " .. kind .. " rd " .. name
  end
  local words = read(tree, c, known[1])
  if not words or c:left() > 0 then return nil end
  return known[2]:format(table.unpack(words)) .. " rd " .. name
end

-- Gives the state in words (empty for unknown types), or nil if the value is bad.
local function dissect_value(tree, kind, range)
  local readers = VALUES[kind]
  if not readers then return "" end
  local c = cursor(range)
  local head, flags = c:take(1), c:take(1)
  if not flags then return nil end
  tree:add(f.version, head)
  tree:add(f.state, head)
  tree:add(f.flags, flags)
  if not read(tree, c, readers) then return nil end
  for _, more in ipairs(MORE[kind] or {}) do
    if c:left() < more[1] then break end
    read(tree, c, more[2])
  end
  local trailing = c:rest()
  if trailing then tree:add(f.trailing, trailing) end
  return STATES[bit.band(head:uint(), 15)]
end

-- One route; gives false where the lengths run over the end.
local function dissect_route(tree, c, announced)
  local start = c.at
  local id = mesh.prefs.add_path and c:take(4) or nil
  local kind, key_length, value_length = c:take(1), c:take(2), c:take(1)
  if not (key_length and value_length) then return false end
  if c:left() < key_length:uint() + value_length:uint() then return false end
  local key, value = c:take(key_length:uint()), c:take(value_length:uint())
  local route = tree:add(f.route, c.range(start, c.at - start))
  if id then route:add(f.path_id, id) end
  route:add(f.action, kind, announced and 1 or 0):set_generated()
  route:add(f.type, kind)
  route:add(f.key_length, key_length)
  route:add(f.value_length, value_length)
  local of_key = key and route:add(f.key, key) or route
  local words = dissect_key(of_key, kind:uint(), key)
  if not words then
    route:add_proto_expert_info(e.bad_key)
    words = "bad key"
  end
  if value then
    local of_value = route:add(f.value, value)
    if announced then
      local state = dissect_value(of_value, kind:uint(), value)
      if not state then route:add_proto_expert_info(e.bad_value) end
      if state and state ~= "" then words = words .. " " .. state end
    end
  elseif announced and VALUES[kind:uint()] then
    route:add_proto_expert_info(e.bad_value)
  end
  words = (announced and "announce " or "withdraw ") .. words
  route:set_text("Route: " .. words)
  route:add(f.summary, words):set_generated()
  return true
end

local function dissect_routes(tree, c, announced)
  local count = 0
  while c:left() > 0 do
    if not dissect_route(tree, c, announced) then
      tree:add_proto_expert_info(e.overrun)
      break
    end
    count = count + 1
  end
  return count
end

local function dissect_facts(tree, range)
  local facts = tree:add(f.facts, range)
  local c = cursor(range)
  while c:left() > 0 do
    local kind, length = c:take(1), c:take(2)
    local octets = length and c:sub(length:uint())
    if not octets then
      facts:add_proto_expert_info(e.bad_facts)
      return
    end
    facts:add(f.fact_type, kind)
    facts:add(f.fact_length, length)
    local what = FACTS[kind:uint()]
    if what == "protocols" then
      while octets:left() > 0 do
        local name = octets:sub(octets:take(1):uint())
        if not name or name.length == 0 then
          facts:add_proto_expert_info(e.bad_facts)
          return
        end
        facts:add_packet_field(f.alpn, name.range, ENC_UTF_8)
      end
    elseif what == "identity" and octets.length == 32 then
      facts:add(f.identity, octets.range)
    elseif what == "zone" and octets.length > 0 and octets.length <= 63 then
      facts:add_packet_field(f.zone, octets.range, ENC_UTF_8)
    elseif what == nil then
      if octets.range then facts:add(f.fact, octets.range) end
    elseif what == "identity" or octets.length > 0 then
      facts:add_proto_expert_info(e.bad_facts)
    end
  end
end

local REACH, UNREACH, EXTENDED = 14, 15, 0x10

-- The next path attribute: flags, type code and value (a cursor).
local function attribute(c)
  local start = c.at
  local flags, code = c:take(1), c:take(1)
  if not code then return nil end
  local length = c:take(bit.band(flags:uint(), EXTENDED) ~= 0 and 2 or 1)
  local value = length and c:sub(length:uint())
  if not value then return nil end
  local all = c.range(start, c.at - start)
  return { all = all, flags = flags, code = code, length = length, value = value }
end

-- Is this cursor in front of our AFI and SAFI?
local function is_ours(c)
  return c:left() >= 3 and c.range(0, 2):uint() == mesh.prefs.afi
    and c.range(2, 1):uint() == mesh.prefs.safi
end

local function each(field, width)
  return function(tree, c)
    while c:left() > 0 do
      local octets = c:take(width)
      if not octets then return false end
      tree:add(field, octets)
    end
    return true
  end
end

local function one(field, width)
  local reader = plain(field, width)
  return function(tree, c) return reader(tree, c) ~= nil and c:left() == 0 end
end

local function as_path(tree, c)
  while c:left() > 0 do
    local start = c.at
    local kind, count = c:take(1), c:take(1)
    if not count or c:left() < 4 * count:uint() then return false end
    local words = { SEGMENTS[kind:uint()] or "?" }
    for _ = 1, count:uint() do words[#words + 1] = tostring(c:take(4):uint()) end
    tree:add(f.segment, c.range(start, c.at - start), table.concat(words, " "))
  end
  return true
end

local function communities(tree, c)
  while c:left() > 0 do
    local octets = c:take(8)
    if not octets then return false end
    if octets(0, 2):uint() == 0x0102 then
      tree:add(f.target, octets, octets(2, 4):uint() .. ":" .. octets(6, 2):uint())
    else
      tree:add(f.community, octets)
    end
  end
  return true
end

-- The attributes that travel with MESH routes; each gives false where it is malformed.
local READERS = {
  [1] = one(f.origin, 1), [2] = as_path, [4] = one(f.med, 4), [5] = one(f.local_pref, 4),
  [9] = one(f.originator, 4), [10] = each(f.cluster, 4), [16] = communities,
}

local function reach(tree, c, said)
  tree:add(f.afi, c:take(2))
  tree:add(f.safi, c:take(1))
  local length = c:take(1)
  local hop = length and c:take(length:uint())
  local reserved = c:take(1)
  if not (hop and reserved and hop:len() == 4) then return false end
  tree:add(f.next_hop, hop)
  said[#said + 1] = dissect_routes(tree, c, true) .. " announced"
  return true
end

local function unreach(tree, c, said)
  tree:add(f.afi, c:take(2))
  tree:add(f.safi, c:take(1))
  if c:left() == 0 then
    tree:add(f.end_of_rib, c.range, true):set_generated()
    said[#said + 1] = "End-of-RIB"
  else
    said[#said + 1] = dissect_routes(tree, c, false) .. " withdrawn"
  end
  return true
end

local function dissect_attribute(tree, a, said)
  local code, c = a.code:uint(), a.value
  local item = tree:add(f.attribute, a.all)
  local name = code == mesh.prefs.facts and "FACTS" or ATTRIBUTES[code] or "unknown"
  item:set_text("Attribute " .. name .. " (" .. code .. ")")
  item:add(f.attribute_flags, a.flags)
  item:add(f.attribute_code, a.code)
  item:add(f.attribute_length, a.length)
  local good = true
  if code == REACH and is_ours(c) then
    good = reach(item, c, said)
  elseif code == UNREACH and is_ours(c) then
    good = unreach(item, c, said)
  elseif code == mesh.prefs.facts then
    if c.range then dissect_facts(item, c.range) end
  elseif READERS[code] then
    good = READERS[code](item, c)
  elseif c.range then
    item:add(f.octets, c.range)
  end
  if not good then item:add_proto_expert_info(e.bad_attribute) end
end

-- The body of an UPDATE; gives what to say of it.
local function dissect_update(tree, c)
  local said = {}
  local length = c:take(2)
  local withdrawn = length and c:sub(length:uint())
  local attributes_length = withdrawn and c:take(2)
  local attributes = attributes_length and c:sub(attributes_length:uint())
  if not attributes then
    tree:add_proto_expert_info(e.bad_message)
    return said
  end
  tree:add(f.withdrawn_length, length)
  if withdrawn.range then tree:add(f.octets, withdrawn.range) end
  tree:add(f.attributes_length, attributes_length)
  while attributes:left() > 0 do
    local a = attribute(attributes)
    if not a then
      tree:add_proto_expert_info(e.bad_message)
      break
    end
    dissect_attribute(tree, a, said)
  end
  local rest = c:rest()
  if rest then tree:add(f.octets, rest) end
  return said
end

-- Does this whole message carry MESH routes?
local function has_routes(message)
  if message(18, 1):uint() ~= UPDATE then return false end
  local c = cursor(message)
  c:take(HEADER)
  local length = c:take(2)
  if not length or not c:sub(length:uint()) then return false end
  length = c:take(2)
  local attributes = length and c:sub(length:uint())
  while attributes and attributes:left() > 0 do
    local a = attribute(attributes)
    if not a then return false end
    local code = a.code:uint()
    if (code == REACH or code == UNREACH) and is_ours(a.value) then return true end
  end
  return false
end

local built_in = Dissector.get("bgp")
-- The messages of this segment that were already shown: their words stay in the Info column.
local shown = 0

local function dissect_message(tvb, pinfo, root)
  local message = tvb:range()
  local routes = message:len() >= HEADER and has_routes(message)
  if not routes and message:len() <= BUILT_IN_MAX then
    if shown > 0 then
      pinfo.cols.info:append("; ")
      pinfo.cols.info:fence()
    end
    built_in:call(tvb, pinfo, root)
    pinfo.cols.info:fence()
    shown = shown + 1
    return tvb:len()
  end
  local tree = root:add(mesh, message)
  tree:add(f.length, message(16, 2))
  tree:add(f.kind, message(18, 1))
  local c = cursor(message)
  c:take(HEADER)
  pinfo.cols.protocol = "BGP"
  local what = "Message of type " .. message(18, 1):uint()
  if message(18, 1):uint() == UPDATE then
    local said = dissect_update(tree, c)
    what = "UPDATE Message" .. (routes and ", MESH: " .. table.concat(said, ", ") or "")
  elseif c:left() > 0 then
    tree:add(f.octets, c:rest())
  end
  pinfo.cols.info:append((shown > 0 and "; " or "") .. what)
  pinfo.cols.info:fence()
  shown = shown + 1
  return tvb:len()
end

local function length_of(tvb, _, at)
  return math.max(HEADER, tvb(at + 16, 2):uint())
end

function mesh.dissector(tvb, pinfo, root)
  shown = 0
  -- A capture may begin inside a message: what is before the first marker belongs to nobody.
  local start = tvb:raw():find(MARKER, 1, true)
  if not start then
    local head = tvb:raw(0, math.min(16, tvb:len()))
    if head ~= MARKER:sub(1, #head) then return 0 end
    start = 1
  end
  pinfo.cols.info:clear()
  if start > 1 then
    dissect_tcp_pdus(tvb(start - 1):tvb(), root, HEADER, length_of, dissect_message)
  else
    dissect_tcp_pdus(tvb, root, HEADER, length_of, dissect_message)
  end
  return tvb:len()
end

DissectorTable.get("tcp.port"):add(179, mesh)
