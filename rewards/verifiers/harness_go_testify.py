"""Go's tests that use testify, as HumanEvalPack's and HumanEval-X's do: boxes have Go's own library and no packages.

What such tests call of `assert` and `require` is defined here anew, with testify's meaning: values are equal when
`reflect.DeepEqual` says so, and their types with them; a failed `assert` lets the test go on, a failed `require` ends
it. The answer cannot reach it: its names are drawn for each run, and it asks the value for nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.verifiers.harness_rows_compiled import GO

_PACKAGE = r"github\.com/stretchr/testify/(?:assert|require)"
_IMPORT = (rf'^[ \t]*(?:import[ \t]+)?"{_PACKAGE}"[ \t]*;?[ \t]*\n?', "")

_TESTIFY = """
type unit_all_@ID@ struct { fatal bool }
type unit_that_@ID@ struct {
	t *unit_testing_@ID@.T
	fatal bool
}
var unit_assert_@ID@, unit_require_@ID@ = unit_all_@ID@{false}, unit_all_@ID@{true}
func (all unit_all_@ID@) New(t *unit_testing_@ID@.T) unit_that_@ID@ { return unit_that_@ID@{t, all.fatal} }
func (that unit_that_@ID@) held(held bool, said string, values ...interface{}) bool {
	if held { return true }
	that.t.Errorf(said, values...)
	if that.fatal { that.t.FailNow() }
	return false
}
func unit_equal_@ID@(a, b interface{}) bool { return unit_reflect_@ID@.DeepEqual(a, b) }
func unit_nil_@ID@(value interface{}) bool {
	if value == nil { return true }
	switch found := unit_reflect_@ID@.ValueOf(value); found.Kind() {
	case unit_reflect_@ID@.Chan, unit_reflect_@ID@.Func, unit_reflect_@ID@.Map, unit_reflect_@ID@.Ptr,
		unit_reflect_@ID@.Slice, unit_reflect_@ID@.Interface, unit_reflect_@ID@.UnsafePointer:
		return found.IsNil()
	}
	return false
}
func unit_size_@ID@(value interface{}) (size int) {
	defer func() { if recover() != nil { size = -1 } }()
	return unit_reflect_@ID@.ValueOf(value).Len()
}
func unit_empty_@ID@(value interface{}) bool {
	if unit_nil_@ID@(value) || unit_size_@ID@(value) == 0 { return true }
	found := unit_reflect_@ID@.ValueOf(value)
	return found.Kind() == unit_reflect_@ID@.Ptr && unit_empty_@ID@(found.Elem().Interface()) || found.IsZero()
}
func unit_number_@ID@(value interface{}) (number float64, is bool) {
	found := unit_reflect_@ID@.ValueOf(value)
	switch found.Kind() {
	case unit_reflect_@ID@.Float32, unit_reflect_@ID@.Float64: return found.Float(), true
	case unit_reflect_@ID@.Int, unit_reflect_@ID@.Int8, unit_reflect_@ID@.Int16, unit_reflect_@ID@.Int32,
		unit_reflect_@ID@.Int64: return float64(found.Int()), true
	case unit_reflect_@ID@.Uint, unit_reflect_@ID@.Uint8, unit_reflect_@ID@.Uint16, unit_reflect_@ID@.Uint32,
		unit_reflect_@ID@.Uint64: return float64(found.Uint()), true
	}
	return 0, false
}
func unit_near_@ID@(a, b interface{}, delta float64) bool {
	one, is_one := unit_number_@ID@(a)
	other, is_other := unit_number_@ID@(b)
	if one != one && other != other { return is_one && is_other }
	return is_one && is_other && one - other >= -delta && one - other <= delta
}
func unit_has_@ID@(list, item interface{}) (has bool) {
	defer func() { if recover() != nil { has = false } }()
	found := unit_reflect_@ID@.ValueOf(list)
	switch found.Kind() {
	case unit_reflect_@ID@.String:
		text, part := found.String(), unit_reflect_@ID@.ValueOf(item).String()
		for at := 0; at + len(part) <= len(text); at++ { if text[at:at+len(part)] == part { return true } }
	case unit_reflect_@ID@.Map:
		for _, key := range found.MapKeys() { if unit_equal_@ID@(key.Interface(), item) { return true } }
	default:
		for at := 0; at < found.Len(); at++ { if unit_equal_@ID@(found.Index(at).Interface(), item) { return true } }
	}
	return false
}
func unit_match_@ID@(a, b interface{}) (match bool) {
	if unit_empty_@ID@(a) && unit_empty_@ID@(b) { return true }
	defer func() { if recover() != nil { match = false } }()
	one, other := unit_reflect_@ID@.ValueOf(a), unit_reflect_@ID@.ValueOf(b)
	if one.Len() != other.Len() { return false }
	taken := make([]bool, other.Len())
	next:
	for at := 0; at < one.Len(); at++ {
		for to := range taken {
			if !taken[to] && unit_equal_@ID@(one.Index(at).Interface(), other.Index(to).Interface()) {
				taken[to] = true
				continue next
			}
		}
		return false
	}
	return true
}
func unit_alike_@ID@(a, b interface{}) bool {
	if unit_equal_@ID@(a, b) { return true }
	if a == nil || b == nil { return false }
	one, kind := unit_reflect_@ID@.ValueOf(a), unit_reflect_@ID@.TypeOf(b)
	return one.Type().ConvertibleTo(kind) && unit_equal_@ID@(one.Convert(kind).Interface(), b)
}
func unit_panics_@ID@(call func()) (panics bool) {
	panics = true
	defer func() { recover() }()
	call()
	panics = false
	return
}
func (that unit_that_@ID@) Equal(a, b interface{}, said ...interface{}) bool {
	return that.held(unit_equal_@ID@(a, b), "expected %#v, got %#v", a, b)
}
func (that unit_that_@ID@) NotEqual(a, b interface{}, said ...interface{}) bool {
	return that.held(!unit_equal_@ID@(a, b), "should not be %#v", b)
}
func (that unit_that_@ID@) EqualValues(a, b interface{}, said ...interface{}) bool {
	return that.held(unit_alike_@ID@(a, b), "expected %#v, got %#v", a, b)
}
func (that unit_that_@ID@) True(value bool, said ...interface{}) bool { return that.held(value, "should be true") }
func (that unit_that_@ID@) False(value bool, said ...interface{}) bool { return that.held(!value, "should be false") }
func (that unit_that_@ID@) Nil(value interface{}, said ...interface{}) bool {
	return that.held(unit_nil_@ID@(value), "expected nil, got %#v", value)
}
func (that unit_that_@ID@) NotNil(value interface{}, said ...interface{}) bool {
	return that.held(!unit_nil_@ID@(value), "should not be nil")
}
func (that unit_that_@ID@) InDelta(a, b interface{}, delta float64, said ...interface{}) bool {
	return that.held(unit_near_@ID@(a, b, delta), "expected %v within %v, got %v", a, delta, b)
}
func (that unit_that_@ID@) Len(value interface{}, size int, said ...interface{}) bool {
	return that.held(unit_size_@ID@(value) == size, "expected %d items, got %#v", size, value)
}
func (that unit_that_@ID@) Empty(value interface{}, said ...interface{}) bool {
	return that.held(unit_empty_@ID@(value), "should be empty, is %#v", value)
}
func (that unit_that_@ID@) NotEmpty(value interface{}, said ...interface{}) bool {
	return that.held(!unit_empty_@ID@(value), "should not be empty")
}
func (that unit_that_@ID@) Contains(list, item interface{}, said ...interface{}) bool {
	return that.held(unit_has_@ID@(list, item), "%#v does not contain %#v", list, item)
}
func (that unit_that_@ID@) NotContains(list, item interface{}, said ...interface{}) bool {
	return that.held(!unit_has_@ID@(list, item), "%#v contains %#v", list, item)
}
func (that unit_that_@ID@) ElementsMatch(a, b interface{}, said ...interface{}) bool {
	return that.held(unit_match_@ID@(a, b), "expected the items of %#v, got %#v", a, b)
}
func (that unit_that_@ID@) NoError(err error, said ...interface{}) bool {
	return that.held(err == nil, "should be no error, is %v", err)
}
func (that unit_that_@ID@) Error(err error, said ...interface{}) bool {
	return that.held(err != nil, "should be an error")
}
func (that unit_that_@ID@) Panics(call func(), said ...interface{}) bool {
	return that.held(unit_panics_@ID@(call), "should panic")
}
"""

_DEFINED = "|".join(("New", *re.findall(r"^func \(that unit_that_@ID@\) ([A-Z]\w*)", _TESTIFY, re.MULTILINE)))

GO_TESTIFY = replace(
    GO,
    unknown=rf"\b(?:assert|require)\.(?!(?:{_DEFINED})\()[A-Z]\w*\(",
    can_fail=rf"{GO.can_fail}|\b(?:assert|require)\.\w+\(",
    program=(_IMPORT, *GO.program),
    tests=(
        _IMPORT,
        (r"\b(assert|require)\.New\(", r"unit_\1_@ID@.New("),
        (r"\b(assert|require)\.(\w+)\(\s*t\s*,\s*", r"unit_\1_@ID@.New(t).\2("),
        *GO.tests,
    ),
    before=GO.before.replace('"testing"\n', '"testing"\n unit_reflect_@ID@ "reflect"\n'),
    after=_TESTIFY + GO.after,
)
