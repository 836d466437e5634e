# Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
# Everything it needs is bound before the answer runs and may replace it.
lambda do
  kind_of, fields, items = Kernel.instance_method(:class), Hash.instance_method(:each), Array.instance_method(:each)
  to_hex, bits, unpack = Integer.instance_method(:to_s), Array.instance_method(:pack), String.instance_method(:unpack1)
  encode, ascii = String.instance_method(:encode), Encoding::UTF_8
  text_of = Module.instance_method(:name)
  tokens = STDIN.binmode.read.split("\n")
  STDIN.reopen("/dev/null")
  mark, file, entry, count = tokens.shift(4)
  at = -1
  read = lambda do
    token = tokens[at += 1]
    rest = token[1..]
    case token[0]
    when "n" then nil
    when "b" then rest == "1"
    when "i" then Integer(rest, 10)
    when "f" then [rest].pack("H*").unpack1("G")
    when "s" then [rest].pack("H*").force_encoding(Encoding::UTF_8)
    when "l" then Array.new(Integer(rest, 10)) { read.call }
    else Integer(rest, 10).times.to_h { [read.call, read.call] }
    end
  end
  values = Array.new(Integer(count, 10)) { read.call }

  hex = ->(text) { unpack.bind_call(text, "H*") }
  encoded = lambda do |value, depth|
    return '["O","too deep"]' if depth > 200
    kind = kind_of.bind_call(value)
    if kind.equal?(NilClass) then '["N"]'
    elsif kind.equal?(TrueClass) then '["b",1]'
    elsif kind.equal?(FalseClass) then '["b",0]'
    elsif kind.equal?(Integer) then %(["i","#{to_hex.bind_call(value, 16)}"])
    elsif kind.equal?(Float) then %(["D","#{hex.call(bits.bind_call([value], "G"))}"])
    elsif kind.equal?(String) then %(["u","#{hex.call(encode.bind_call(value, ascii))}"])
    elsif kind.equal?(Array)
      out = +""
      items.bind_call(value) { |item| out << (out.empty? ? "" : ",") << encoded.call(item, depth + 1) }
      %(["l",[#{out}]])
    elsif kind.equal?(Hash)
      out = +""
      fields.bind_call(value) do |key, item|
        out << (out.empty? ? "" : ",") << "[" << encoded.call(key, depth + 1) << "," << encoded.call(item, depth + 1) << "]"
      end
      %(["d",[#{out}]])
    else %(["O","an object"])
    end
  end
  channel, leave = IO.for_fd(3, "wb"), Process.method(:exit!)
  send = IO.instance_method(:syswrite)
  say = lambda do |kind, text|
    data = "#{mark}\n#{kind}#{text}".b
    data = data.byteslice(send.bind_call(channel, data)..) until data.empty?
    leave.call(0)
  end
  failed = lambda do |kind, error|
    text = begin
      "#{text_of.bind_call(kind_of.bind_call(error))}: #{error.message}"
    rescue Exception
      "an exception"
    end
    say.call(kind, %("#{text.b[0, 500].gsub(/[^ !#-\[\]-~]/n, "?")}"))
  end

  begin
    program = RubyVM::InstructionSequence.compile(File.read(file, encoding: "utf-8"), file, File.expand_path(file))
  rescue SyntaxError => error
    failed.call("C", error)
  end
  begin
    begin
      program.eval
    rescue SystemExit # a program that ends itself is loaded as well
    end
    # a function of the name, or a method of a class Solution
    owner = TOPLEVEL_BINDING.receiver
    if !owner.respond_to?(entry, true) && Object.const_defined?(:Solution)
      owner = Solution.respond_to?(entry) ? Solution : Solution.new
    end
    say.call("V", encoded.call(owner.__send__(entry, *values), 0))
  rescue SystemExit
    leave.call(1)
  rescue Exception => error
    failed.call("E", error)
  end
end.call
