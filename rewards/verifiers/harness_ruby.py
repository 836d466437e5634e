"""How tests run in Ruby: test-unit or minitest, loaded before the answer and kept as they were.

Any class can be opened again, so before the answer comes the framework's own are frozen, and methods that assertions
and our text rest on are remembered, as an answer's own == for String would decide for every test. They are looked up
again before the tests run and behind the last of them, by methods taken beforehand; a class of tests has to find the
framework's methods where they were. A failed test is a branch not taken, so nothing the answer calls `exit!` matters.

What remains: other methods of the library's that tests call themselves (`sort`, `map`); a method put back in time; a
value of the answer's own class; an answer that searches its process, threads of its own included.
"""

from __future__ import annotations

from rewards.verifiers.harness_row import Harness

#: @BASE@ is the class of test cases, @NAMESPACE@ its framework, @OPEN@ what a class of tests may define anew itself.
_GUARD = """
class Unit_@ID@
  @find, @same = Module.instance_method(:instance_method), UnboundMethod.instance_method(:==)
  @each, @known = Array.instance_method(:each), Hash.instance_method(:key?)
  @owner, @single = UnboundMethod.instance_method(:owner), Kernel.instance_method(:singleton_class)
  @kept, @theirs = [], {}.compare_by_identity
  @base, @open = @BASE@, %i[@OPEN@]

  def self.look(kind, name)
    @find.bind_call(kind, name)
  rescue NameError
    nil
  end

  def self.collect(space)
    return if @theirs.key?(space)
    @theirs[space] = @theirs[space.singleton_class] = true
    space.constants(false).each do |name|
      value = begin
        space.const_get(name, false)
      rescue StandardError, LoadError
        nil
      end
      collect(value) if Module === value && value.name.to_s.start_with?("@NAMESPACE@::")
    end
  end

  collect(@NAMESPACE@)
  kinds = [BasicObject, Object, Kernel, Comparable, Enumerable, String, Symbol, Integer, Float, Rational, Complex]
  kinds += [Array, Hash, Range, Regexp, Struct, Time, Proc, Exception, StandardError, NilClass, TrueClass, FalseClass]
  kinds += [Module, Class, IO, @base] + (defined?(Set) ? [Set] : [])
  kinds += [Object, BasicObject, Module, Class, @base].map(&:singleton_class)
  names = %i[! == != === =~ <=> < <= > >= - abs eql? equal? nil? is_a? kind_of? instance_of? instance_variable_get]
  names += %i[class send __send__ public_send raise throw catch exit! include? empty? inherited method_added new]
  names += %i[instance_method exception message backtrace match match? key? each << +]
  kinds.each do |kind|
    names.each { |name| (found = look(kind, name)) && @kept << [kind, name, found].freeze }
  end
  mine = @base.instance_methods + @base.private_instance_methods - @open
  @mine = mine.select { |name| @theirs.key?(@base.instance_method(name).owner) }.freeze
  of_class = @base.singleton_class
  mine = of_class.instance_methods + of_class.private_instance_methods - @open
  @of_class = mine.select { |name| @theirs.key?(of_class.instance_method(name).owner) }.freeze
  @kept.freeze
  @theirs.each_key { |space| space.freeze unless space.to_s =~ /PrideIO|Mock|AutoRunner/ }
  @theirs.freeze

  # the classes of tests among those the framework knows
  def self.own(classes)
    found = []
    @each.bind_call(classes) { |one| found << one unless @known.bind_call(@theirs, one) }
    found
  end

  # whether the framework, and what it rests on, is what it was; `tests` are the classes of tests
  def self.sound(tests)
    whole = true
    @each.bind_call(@kept) do |kind, name, method|
      now = look(kind, name)
      whole = false unless now && @same.bind_call(method, now)
    end
    @each.bind_call(tests) do |one|
      above = @single.bind_call(one)
      @each.bind_call(@mine) do |name|
        now = look(one, name)
        whole = false unless now && @known.bind_call(@theirs, @owner.bind_call(now))
      end
      @each.bind_call(@of_class) do |name|
        now = look(above, name)
        whole = false unless now && @known.bind_call(@theirs, @owner.bind_call(now))
      end
    end
    whole
  end
  freeze
  UnboundMethod.freeze
end
begin
  load './@GIVEN@'
rescue SystemExit
end
"""
_CHANGED = "Failure: the answer changes methods that its tests rest on"
_END = f"""
if unit_whole_@ID@ && Unit_@ID@.sound(unit_tests_@ID@)
  $stdout.flush
  STDOUT.syswrite("\\n@SECRET@ #{{unit_passed_@ID@}} #{{STDIN.gets}}")
  exit!(0)
end
$stderr.puts("{_CHANGED}") if unit_whole_@ID@
exit!(1)
"""


def _guarded(base: str, namespace: str, may_define: str) -> str:
    return _GUARD.replace("@BASE@", base).replace("@NAMESPACE@", namespace).replace("@OPEN@", may_define)


_MINITEST = Harness(
    can_fail=r"\bassert|\bflunk\b|\brefute",
    separate=True,
    before="""File.delete(__FILE__)
require 'minitest'
%w[spec mock pride_plugin autorun].each do |part|
  require "minitest/#{part}"
rescue LoadError
end
Minitest.seed = 1 if Minitest.respond_to?(:seed=)
"""
    + _guarded(
        "Minitest::Test",
        "Minitest",
        "setup teardown before_setup after_setup before_teardown after_teardown mu_pp test_order name",
    ),
    after="""
unit_passed_@ID@ = 0
unit_tests_@ID@ = Unit_@ID@.own(Minitest::Runnable.runnables)
unit_whole_@ID@ = Unit_@ID@.sound(unit_tests_@ID@)
$stderr.puts("@CHANGED@") unless unit_whole_@ID@
unit_tests_@ID@.each do |tests|
  break unless unit_whole_@ID@
  tests.runnable_methods.each do |name|
    result = Minitest.run_one_method(tests, name)
    if result.passed? && !result.skipped?
      unit_passed_@ID@ += result.assertions
    else
      unit_whole_@ID@ = false
      $stderr.puts("Failure: #{name}", result.failures)
      break
    end
  end
end
""".replace("@CHANGED@", _CHANGED)
    + _END,
    sites=r"\bassert(?:_\w+)?\b|\brefute",
    every_site=False,
)

RUBY = Harness(
    can_fail=r"\bassert|\braise\b|\bexit\b|\babort\b|\bflunk\b|\brefute",
    separate=True,
    instead=(r"\bMinitest::Test\b", _MINITEST),
    # the framework would run its tests when the program leaves; they run here instead, and all of them have to
    before="""File.delete(__FILE__)
require 'test/unit'
require 'test/unit/testresult'
Test::Unit::AutoRunner.need_auto_run = false
"""
    + _guarded("Test::Unit::TestCase", "Test::Unit", "setup teardown cleanup startup shutdown name description"),
    after="""
unit_passed_@ID@ = 0
unit_tests_@ID@ = Unit_@ID@.own(Test::Unit::TestCase::DESCENDANTS)
unit_whole_@ID@ = Unit_@ID@.sound(unit_tests_@ID@)
$stderr.puts("@CHANGED@") unless unit_whole_@ID@
unit_tests_@ID@.each do |tests|
  break unless unit_whole_@ID@
  suite = tests.suite
  next if suite.size == 0
  result = Test::Unit::TestResult.new
  suite.run(result) { |*| }
  if result.passed? && result.run_count == suite.size && result.omission_count == 0 && result.pending_count == 0
    unit_passed_@ID@ += result.assertion_count
  else
    unit_whole_@ID@ = false
    result.faults.each { |fault| $stderr.puts(fault.long_display) }
  end
end
""".replace("@CHANGED@", _CHANGED)
    + _END,
    sites=r"\bassert(?:_\w+)?\b|\brefute",
    every_site=False,
)
