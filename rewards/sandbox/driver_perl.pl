# Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
# Perl has one kind of scalar: a whole number is told as an integer, what was made as text as text.
package assay_driver;
use strict;
no warnings;  # an experimental one is on by default, and would be said once a value
use B ();
use POSIX ();
use Scalar::Util ();

my ($blessed, $type, $finite, $leave) = (\&Scalar::Util::blessed, \&Scalar::Util::reftype, \&POSIX::floor, \&POSIX::_exit);
my $is_bool = $] >= 5.036 ? \&{"builtin::is_bool"} : sub { 0 };
my $look = \&B::svref_2object;
my ($text_flag, $number_flags) = (B::SVf_POK, B::SVf_IOK | B::SVf_NOK);
my ($mark, $file, $entry, $count, @tokens) = do { local $/; split /\n/, <STDIN> };
close STDIN;
open STDIN, "<", "/dev/null";
open my $channel, ">&=", 3 or die;
binmode $channel;

sub value {
    my $token = shift @tokens;
    my ($tag, $rest) = (substr($token, 0, 1), substr($token, 1));
    return undef if $tag eq "n";
    return $rest eq "1" if $tag eq "b";
    return 0 + $rest if $tag eq "i";
    return unpack "d>", pack "H*", $rest if $tag eq "f";
    if ($tag eq "s") {
        my $text = pack "H*", $rest;
        utf8::decode($text);
        return $text;
    }
    return [map { value() } 1 .. $rest] if $tag eq "l";
    return {map { (value(), value()) } 1 .. $rest};
}

sub number {
    my ($value) = @_;
    my $bits = unpack "H*", pack "d>", $value;
    # what is stored as an integer, or is a whole number that a float holds exactly
    my $whole = $look->(\$value)->FLAGS & B::SVf_IOK || (abs($value) < 2**53 && $value == int $value);
    return "[\"D\",\"$bits\"]" if !$whole || $bits eq "8000000000000000";
    return sprintf '["i","%s%x"]', $value < 0 ? ("-", -$value) : ("", $value);
}

sub encoded {
    my ($value, $depth) = @_;
    return '["O","too deep"]' if $depth > 200;
    return '["N"]' if !defined $value;
    if (!ref $value) {
        return $value ? '["b",1]' : '["b",0]' if $is_bool->($value);
        my $flags = $look->(\$value)->FLAGS;
        return number($value) if $flags & $number_flags && !($flags & $text_flag && $] >= 5.036);
        utf8::encode($value);
        return '["u","' . unpack("H*", $value) . '"]';
    }
    return '["O","an object"]' if defined $blessed->($value);
    my $kind = $type->($value);
    return '["l",[' . join(",", map { encoded($_, $depth + 1) } @$value) . ']]' if $kind eq "ARRAY";
    return '["O","' . $kind . '"]' if $kind ne "HASH";
    my @pairs = map { "[" . encoded("$_", $depth + 1) . "," . encoded($value->{$_}, $depth + 1) . "]" } keys %$value;
    return '["d",[' . join(",", @pairs) . ']]';
}

sub say_and_leave {
    my ($kind, $text) = @_;
    print {$channel} "$mark\n$kind$text";
    close $channel;
    $leave->(0);
}

sub failed {
    my ($kind, $text) = @_;
    $text = substr $text, 0, 500;
    $text =~ s/[^ !#-\[\]-~]/?/g;
    say_and_leave($kind, "\"$text\"");
}

my @values = map { value() } 1 .. $count;
my $no_program = qr/syntax error|Global symbol|Can't find string|Missing right|Unmatched right|compilation errors/;
my $loading = 1;
sub finish {
    $loading = 0;
    package main;
    no strict "refs";
    no warnings;
    my $returned = eval { assay_driver::encoded(scalar &{"main::$entry"}(@values), 0) };
    assay_driver::failed("E", "$@") if !defined $returned;
    assay_driver::say_and_leave("V", $returned);
}
END { finish() if $loading }  # a program that ends itself is loaded as well
{
    package main;
    local $@;
    no strict "refs";
    no warnings;
    do "./$file";
    assay_driver::failed($@ =~ $no_program ? "C" : "E", "$@") if $@;
}
finish();
