"""How tests run in the languages that are interpreted: mostly the answer has a file of its own, which they load."""

from __future__ import annotations

from dataclasses import replace

from rewards.verifiers.harness_row import ASSERT, THROW, Harness

JAVASCRIPT = Harness(
    can_fail=rf"{ASSERT}|{THROW}|\bprocess\.exit\b",
    way="driver",
    # answer and tests are scripts that share their names, and export is no syntax in a script
    program=(
        (r"^export\s+(?:default\s+)?(?=(?:async\s+)?function\b|class\b|const\b|let\b|var\b)", ""),
        (r"^export\s*(?:\{[^{}]*\}|default\s+[\w.]+)[ \t]*;?[ \t]*$", ""),
    ),
    texts=r"`(?:\\.|[^`\\])*`",
    sites=r"\bassert(?:\.\w+)*\s*\(",
)

TYPESCRIPT = Harness(
    can_fail=JAVASCRIPT.can_fail,
    way="driver",
    sites=JAVASCRIPT.sites,
    between="\n/* */;\n",
    after='\n;(globalThis as any)["unit_@ID@"]();\n',
)

PHP = Harness(
    can_fail=rf"{ASSERT}|{THROW}|\bexit\b|\bdie\b",
    separate=True,
    flags=("-d", "zend.assertions=1", "-d", "assert.exception=1"),
    program=(
        (r"\A#!.*\n", ""),
        (r"\A\s*(?=<\?)", ""),
        (r"\A(?!<\?)", "<?php\n"),
        (r"^([ \t]*(?:<\?php\s+)?)namespace\s+[\w\\]+\s*;", r"\1"),  # the tests call by the bare name
    ),
    # the switches can be turned back while the program runs; a function of ours cannot
    tests=((r"\A\s*<\?php\b", ""), (r"(?<![\w>:$])assert\s*\(", "unit_pass_@ID@(")),
    before="""<?php
unlink(__FILE__);
$unit_passed_@ID@ = 0;
function unit_pass_@ID@($held, $said = null) {
    if (!$held) { throw new Exception("assertion failed"); }
    $GLOBALS['unit_passed_@ID@']++;
}
require './@GIVEN@';
""",
    comments=r"//[^\n]*|#[^\n]*|/\*[\s\S]*?\*/",
    after='\nfwrite(STDOUT, "\\n@SECRET@ $unit_passed_@ID@ " . trim(fgets(STDIN)) . "\\n");\n',
    processes=1,
)

PERL = Harness(
    comments=r"(?:^|(?<=[\s;]))#[^\n]*",
    can_fail=r"\bexit\b|\bdie\b|\bcroak\b",
    separate=True,
    tests=((r"^\s*use\s+Test::Deep\s*;", ""), (r"\beq_deeply\s*\(", "unit_pass_@ID@(")),
    # Test::Deep is no part of Perl, and an answer could replace it; for plain data this is what it does
    before="""unlink $0;
use POSIX ();
my $unit_passed_@ID@ = 0;
sub unit_same_@ID@ {
    my ($got, $wanted) = @_;
    return !defined $got && !defined $wanted if !defined $got || !defined $wanted;
    return 0 if ref $got ne ref $wanted;
    return $got eq $wanted if !ref $got;
    if (ref $got eq 'ARRAY') {
        return 0 if @$got != @$wanted;
        unit_same_@ID@($got->[$_], $wanted->[$_]) || return 0 for 0 .. $#$got;
        return 1;
    }
    if (ref $got eq 'HASH') {
        return 0 if keys %$got != keys %$wanted;
        (exists $wanted->{$_} && unit_same_@ID@($got->{$_}, $wanted->{$_})) || return 0 for keys %$got;
        return 1;
    }
    return $got == $wanted;
}
sub unit_pass_@ID@ {
    my $held = unit_same_@ID@(@_);
    syswrite(STDERR, "assertion failed\n") if !$held;
    $unit_passed_@ID@++ if $held;
    return $held;
}
do './@GIVEN@';
die $@ if $@;
""",
    after="""
my $unit_rest_@ID@ = <STDIN>;
syswrite(STDOUT, "\\n@SECRET@ $unit_passed_@ID@ $unit_rest_@ID@");
POSIX::_exit(0);
""",
    processes=1,
)

LUA = Harness(
    comments=r"--\[(?P<level>=*)\[[\s\S]*?\](?P=level)\]|--[^\n]*",
    can_fail=r"\blu\.assert|\bassert\b|\berror\b|\bos\.exit\b",
    tests=(
        (r"^\s*(?:local\s+)?lu\s*=\s*require\s*\(?\s*['\"]luaunit['\"]\s*\)?", ""),
        (r"^\s*os\.exit\s*\(\s*lu\.LuaUnit\.run\s*\(\s*\)\s*\)", ""),
        (r"\blu\.assertEquals\s*\(", "unit_pass_@ID@("),
    ),
    # luaunit is no part of Lua, and an answer could replace it; for numbers, strings and tables this is what it does
    before="""os.remove(arg[0])
local unit_io_@ID@, unit_leave_@ID@, unit_type_@ID@, unit_next_@ID@, unit_error_@ID@ = io, os.exit, type, next, error
local unit_raw_@ID@, unit_get_@ID@, unit_passed_@ID@ = rawequal, rawget, 0
local function unit_same_@ID@(got, wanted)
  if unit_type_@ID@(got) ~= "table" or unit_type_@ID@(wanted) ~= "table" then
    return unit_type_@ID@(got) == unit_type_@ID@(wanted) and got == wanted
  end
  for key, value in unit_next_@ID@, got do
    if not unit_same_@ID@(value, unit_get_@ID@(wanted, key)) then return false end
  end
  for key in unit_next_@ID@, wanted do
    if unit_raw_@ID@(unit_get_@ID@(got, key), nil) then return false end
  end
  return true
end
local function unit_pass_@ID@(got, wanted)
  if not unit_same_@ID@(got, wanted) then unit_error_@ID@("assertion failed", 2) end
  unit_passed_@ID@ = unit_passed_@ID@ + 1
end
""",
    after="""
@CALLS@
unit_io_@ID@.stdout:write("\\n@SECRET@ ", unit_passed_@ID@, " ", unit_io_@ID@.read("l"), "\\n")
unit_io_@ID@.stdout:flush()
unit_leave_@ID@(0, false)
""",
    calls=(r"^\s*function\s+(test\w*)\s*\(", "{name}()"),
    processes=1,
)


def _bash_texts() -> str:
    """Comments, strings and here-documents of Bash: what is quoted may hold substitutions, which hold strings again."""
    string = r'"(?:\\[\s\S]|[^"\\])*+"'
    inner = r"[^()]*+"
    for _ in range(3):
        inner = rf"(?:\\[\s\S]|'[^'\n]*'|{string}|\({inner}\)|[^()'\"\\])*+"
        string = rf'"(?:\\[\s\S]|\$\({inner}\)|`(?:\\[\s\S]|[^`\\])*+`|[^"\\])*+"'
    # one whose first line goes on to leave (`cat <<EOF || exit 1`) is looked into
    document = r"(?<!<)<<-?[ \t]*(?P<q>['\"]?)(?P<end>[A-Za-z_]\w*)(?P=q)(?!(?:.*\W)?exit\b).*\n(?:.*\n)*?\t*(?P=end)$"
    return rf"\\[\s\S]|(?:^|(?<=\s))#[^\n]*|\$'(?:\\[\s\S]|[^'\\])*+'|'[^']*'|{string}|{document}"


_BASH = Harness(
    can_fail=r"\[\[|\[ |\btest\b|\bexit\b|\breturn\b",
    separate=True,
    # keywords and assignments, which no function of the answer can stand in for, whatever `exit` has become
    tests=(
        (
            r"((?:^|[;&|{]|\b(?:then|else|do)\b|(?:^|;;|\bin\b)[ \t]*\(?[^\s()$'\"]+\))[ \t]*)(exit[ \t]+[1-9]\d*)\b",
            r"\1{ unit_failed_@ID@=1; \2; }",
        ),
        (
            r"^([ \t]*)(\[\[.*\]\])[ \t]*$",
            r"\1if \2; then unit_pass_@ID@+=.; else echo 'assertion failed' >&2; unit_failed_@ID@=1; exit 1; fi",
        ),
    ),
    # one compound command, so all of it is read before the answer's aliases are there
    before='{ rm -f -- "$0"\nsource ./@GIVEN@\nunit_pass_@ID@= unit_failed_@ID@=\n',
    # in POSIX mode `unset` and `exit` are found before functions of these names; what stays (a function that is
    # read-only, no POSIX mode) ends in an expansion that is an error
    after="""
POSIXLY_CORRECT=1
\\unset -f printf read && [[ -o posix && -z $unit_failed_@ID@ ]] ||
unit_failed_@ID@=${unit_never_@ID@:?assertion failed}
\\read -r unit_rest_@ID@
\\printf '\\n%s %s %s\\n' @SECRET@ "${#unit_pass_@ID@}" "$unit_rest_@ID@"
\\exit 0
}
""",
    texts=_bash_texts(),
    sites=r"unit_pass_@ID@\+=",
    comments=r"(?:^|(?<=\s))#[^\n]*",
)

BASH = replace(
    _BASH,
    # the one command is read before its `shopt` runs, and would be no syntax; the answer is read without it, as ever
    instead=(
        r"(?m)^[ \t]*shopt[ \t]+-s\b[^\n;]*\bextglob\b",
        replace(_BASH, before=_BASH.before.replace("{ ", "shopt -s extglob\n{ shopt -u extglob\n", 1)),
    ),
)

R = Harness(
    can_fail=r"\bstopifnot\b|\bstop\b|\bquit\b|\bexpect_",
    separate=True,
    tests=((r"(?<![:\w.])(stopifnot|isTRUE|all\.equal|identical)\s*\(", r"base::\1("),),
    before='invisible(base::file.remove("@SOURCE@"))\nbase::source("./@GIVEN@")\n'
    # comparing calls methods by their name, and would find those of the answer first
    'base::rm(list = base::grep("^(all[.]equal|Ops|[=!]=)", base::ls(base::globalenv(), all.names = TRUE), '
    "value = TRUE), envir = base::globalenv())\n",
    after='\nbase::cat(base::paste0("\\n@SECRET@ 0 ", base::readLines(base::file("stdin"), 1), "\\n"))\n'
    "base::quit(status = 0)\n",
    sites="",
)

JULIA = Harness(
    can_fail=r"@test\b|@assert\b|\berror\(|\bthrow\(",
    separate=True,
    tests=((r"^\s*using\s+Test\b.*$", ""), (r"(?<![.\w])@(testset|test|test_throws)\b", r"unit_test_@ID@.@\1")),
    before='rm(@__FILE__)\ninclude("@GIVEN@")\nimport Test as unit_test_@ID@\n',
    after='\nBase.print("\\n@SECRET@ 0 ", Base.readline(), "\\n")\n',
    sites="",
)

RACKET = Harness(
    can_fail=r"\(check-|\(error\b|\(raise\b",
    program=((r"\A(?!\s*(?:;.*\s*)*#lang)", "#lang racket\n"),),
    # a check that fails is only written to standard error; here it is remembered, and one that holds is counted;
    # with a prefix, it is not one that the answer defines
    tests=((r"\(check-", "(unit_@ID@:check-"), (r"\Z", "\n)")),
    texts=r"#\\[\s\S]|;[^\n]*|#\|[\s\S]*?\|#|\"(?:\\[\s\S]|[^\"\\])*\"",
    # a definition of the answer hides what its language gives, for the whole module: here and in the tests stand names
    # of ours, and what has no name in a text is defined once more, which an answer that defines it contradicts; words
    # of the tests get the meaning they have in a module of ours, and stay the words they are where they are quoted
    between="""
(require (prefix-in unit_@ID@: rackunit) (prefix-in base_@ID@: racket/base)
         (for-syntax (prefix-in base_@ID@: racket/base)))
(base_@ID@:define-syntaxes (#%app #%datum #%top quote)
  (base_@ID@:#%app base_@ID@:values
   (base_@ID@:#%app base_@ID@:make-rename-transformer (base_@ID@:quote-syntax base_@ID@:#%app))
   (base_@ID@:#%app base_@ID@:make-rename-transformer (base_@ID@:quote-syntax base_@ID@:#%datum))
   (base_@ID@:#%app base_@ID@:make-rename-transformer (base_@ID@:quote-syntax base_@ID@:#%top))
   (base_@ID@:#%app base_@ID@:make-rename-transformer (base_@ID@:quote-syntax base_@ID@:quote))))
(base_@ID@:define unit_failed_@ID@ #f)
(base_@ID@:define unit_passed_@ID@ 0)
(unit_@ID@:current-check-around
 (base_@ID@:lambda (check)
   (base_@ID@:with-handlers
       ([(base_@ID@:lambda (_) #t)
         (base_@ID@:lambda (failure)
           (base_@ID@:set! unit_failed_@ID@ #t)
           (base_@ID@:eprintf "assertion failed: ~a\\n" failure))])
     (check)
     (base_@ID@:set! unit_passed_@ID@ (base_@ID@:add1 unit_passed_@ID@)))))
(base_@ID@:module unit_own_@ID@ racket/base
  (require (for-syntax racket/base))
  (provide unit_tests_@ID@)
  (define-syntax (unit_tests_@ID@ tests)
    (define (own it)
      (cond
        [(pair? it) (cons (own (car it)) (own (cdr it)))]
        [(not (syntax? it)) it]
        [(memq (syntax-e it) '(define let let* lambda list)) (datum->syntax #'here (syntax-e it) it it)]
        [(pair? (syntax-e it)) (datum->syntax it (own (syntax-e it)) it it)]
        [else it]))
    (datum->syntax #'here (cons #'begin (own (cdr (syntax-e tests)))))))
(base_@ID@:require (submod "." unit_own_@ID@))
(unit_tests_@ID@
""",
    after="""
(base_@ID@:when unit_failed_@ID@ (base_@ID@:exit 1))
(base_@ID@:printf "\\n@SECRET@ ~a ~a\\n" unit_passed_@ID@ (base_@ID@:read-line))
(base_@ID@:flush-output)
(base_@ID@:exit 0)
""",
    sites=r"\(unit_@ID@:check-",
    comments=r";[^\n]*|#\|[\s\S]*?\|#",
)
