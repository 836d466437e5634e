-- Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
-- A table with the keys 1, 2, ... is a list, any other a map; of an empty one the declared type decides, outside.
local char, byte, format, sub, unpack, pack = string.char, string.byte, string.format, string.sub, string.unpack, string.pack
local gsub, concat, kind_of, number_kind, raw = string.gsub, table.concat, type, math.type, rawget
local following, meta, protected, text_of, leave = next, debug.getmetatable, xpcall, tostring, os.exit
local integer, error_of, pcall_of = math.tointeger, error, pcall
local channel = io.open("/proc/self/fd/3", "wb")
local write, close = channel.write, channel.close

local tokens, at = {}, 4
for token in string.gmatch(io.read("a"), "[^\n]+") do tokens[#tokens + 1] = token end
io.stdin:close()
local function from_hex(text)
  return (gsub(text, "%x%x", function(pair) return char(tonumber(pair, 16)) end))
end
local function value()
  at = at + 1
  local tag, rest = sub(tokens[at], 1, 1), sub(tokens[at], 2)
  if tag == "n" then return nil end
  if tag == "b" then return rest == "1" end
  if tag == "i" then return integer(rest) end
  if tag == "f" then return (unpack(">d", from_hex(rest))) end
  if tag == "s" then return from_hex(rest) end
  local out = {}
  for index = 1, integer(rest) do
    if tag == "l" then
      out[index] = value()
    else
      local key = value()
      out[key] = value()
    end
  end
  return out
end
local mark, file, entry, count = tokens[1], tokens[2], tokens[3], integer(tokens[4])
local values = {}
for index = 1, count do values[index] = value() end

local function hex(text)
  return (gsub(text, ".", function(one) return format("%02x", byte(one)) end))
end
local encoded
local function of_table(found, depth)
  if meta(found) ~= nil then return '["O","an object"]' end
  local size, out = 0, {}
  for _ in following, found do size = size + 1 end
  for index = 1, size do
    local item = raw(found, index)
    if item == nil then
      out = {}
      for key, one in following, found do
        out[#out + 1] = "[" .. encoded(key, depth + 1) .. "," .. encoded(one, depth + 1) .. "]"
      end
      return '["d",[' .. concat(out, ",") .. "]]"
    end
    out[index] = encoded(item, depth + 1)
  end
  return '["l",[' .. concat(out, ",") .. "]]"
end
encoded = function(found, depth)
  if depth > 180 then return '["O","too deep"]' end
  local kind = kind_of(found)
  if kind == "nil" then return '["N"]' end
  if kind == "boolean" then return found and '["b",1]' or '["b",0]' end
  if kind == "string" then return '["u","' .. hex(found) .. '"]' end
  if kind == "table" then return of_table(found, depth) end
  if kind ~= "number" then return '["O","' .. kind .. '"]' end
  if number_kind(found) == "float" then return '["D","' .. hex(pack(">d", found)) .. '"]' end
  if found < 0 then return format('["i","-%x"]', -found) end
  return format('["i","%x"]', found)
end

local function say(kind, text)
  write(channel, mark, "\n", kind, text)
  close(channel)
  leave(0)
end
local function failed(kind, problem)
  local fine, text = pcall(text_of, problem)
  text = gsub(sub(fine and text or "an error", 1, 500), '[^ !#-%[%]-~]', "?")
  say(kind, '"' .. text .. '"')
end

local source = io.open(file, "rb")
local text = gsub(source:read("a"), "^#[^\n]*", "")
source:close()
-- a local function is found by a `return` behind the answer, where the answer has none of its own
local answer, problem = load(text .. "\nreturn " .. entry, "=" .. file, "t")
if not answer then answer, problem = load(text, "=" .. file, "t") end
if not answer then failed("C", problem) end
-- a program that ends itself is loaded as well; where it does, the function may be one of its locals
local ended, inner = {}, nil
local local_of = debug.getlocal
os.exit = function()
  local at, name, item = 1, local_of(2, 1)
  while name do
    if name == entry then inner = item end
    at = at + 1
    name, item = local_of(2, at)
  end
  error_of(ended, 0)
end
local returned
local fine, wrong = protected(function()
  local loaded, found = pcall_of(answer)
  os.exit = leave
  if not loaded and found ~= ended then error_of(found, 0) end
  if not loaded then found = inner end
  if kind_of(found) == "table" then found = raw(found, entry) end
  if kind_of(found) ~= "function" then found = _G[entry] end
  returned = encoded(found(table.unpack(values, 1, count)), 0)
end, text_of)
if not fine then failed("E", wrong) end
say("V", returned)
