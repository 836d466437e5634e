// Compiled beside an answer in Go; what it reads and writes is described in driver_javascript.js.
// The types of the arguments are those the answer's function declares.
package main

import (
	assay_hex "encoding/hex"
	assay_fmt "fmt"
	assay_io "io"
	assay_math "math"
	assay_os "os"
	assay_reflect "reflect"
	assay_strconv "strconv"
	assay_strings "strings"
)

type assay_input struct {
	tokens []string
	at     int
}

// a variable, so that it is read before any init function of the answer
var assay_given = func() *assay_input {
	text, _ := assay_io.ReadAll(assay_os.Stdin)
	assay_os.Stdin.Close()
	return &assay_input{tokens: assay_strings.Split(string(text), "\n"), at: 4}
}()

func (input *assay_input) next(tags string) (string, byte) {
	token := input.tokens[input.at]
	input.at++
	if !assay_strings.Contains(tags, token[:1]) {
		panic("an argument is not of the type its parameter declares")
	}
	return token[1:], token[0]
}

func (input *assay_input) null() bool {
	if input.tokens[input.at] != "n" {
		return false
	}
	input.at++
	return true
}

func (input *assay_input) count(tag string) int {
	text, _ := input.next(tag)
	count, _ := assay_strconv.Atoi(text)
	return count
}

func (input *assay_input) text() string {
	text, _ := input.next("s")
	bytes, _ := assay_hex.DecodeString(text)
	return string(bytes)
}

// what nothing is declared for: as it is
func (input *assay_input) natural() any {
	var kind any
	switch token := input.tokens[input.at]; token[0] {
	case 'n':
		input.at++
		return nil
	case 'b':
		kind = false
	case 'i':
		kind = 0
	case 'f':
		kind = 0.0
	case 's':
		kind = ""
	case 'l':
		kind = []any{}
	default:
		kind = map[string]any{}
	}
	return input.read(assay_reflect.TypeOf(kind)).Interface()
}

func (input *assay_input) read(kind assay_reflect.Type) assay_reflect.Value {
	value := assay_reflect.New(kind).Elem()
	// a text of one letter may be a rune or a byte
	if input.tokens[input.at][0] == 's' && (kind.Kind() == assay_reflect.Int32 || kind.Kind() == assay_reflect.Uint8) {
		letters := []rune(input.text())
		if len(letters) != 1 || (kind.Kind() == assay_reflect.Uint8 && letters[0] > 127) {
			panic("an argument is not one letter")
		}
		value.Set(assay_reflect.ValueOf(letters[0]).Convert(kind))
		return value
	}
	switch kind.Kind() {
	case assay_reflect.Bool:
		text, _ := input.next("b")
		value.SetBool(text == "1")
	case assay_reflect.Int, assay_reflect.Int8, assay_reflect.Int16, assay_reflect.Int32, assay_reflect.Int64:
		text, _ := input.next("i")
		number, err := assay_strconv.ParseInt(text, 10, 64)
		if err != nil || value.OverflowInt(number) {
			panic("an argument does not fit its type")
		}
		value.SetInt(number)
	case assay_reflect.Uint, assay_reflect.Uint8, assay_reflect.Uint16, assay_reflect.Uint32, assay_reflect.Uint64:
		text, _ := input.next("i")
		number, err := assay_strconv.ParseUint(text, 10, 64)
		if err != nil || value.OverflowUint(number) {
			panic("an argument does not fit its type")
		}
		value.SetUint(number)
	case assay_reflect.Float32, assay_reflect.Float64:
		text, _ := input.next("f")
		bits, _ := assay_strconv.ParseUint(text, 16, 64)
		value.SetFloat(assay_math.Float64frombits(bits))
	case assay_reflect.String:
		value.SetString(input.text())
	case assay_reflect.Slice:
		if input.null() {
			break
		}
		count := input.count("l")
		value.Set(assay_reflect.MakeSlice(kind, count, count))
		for i := 0; i < count; i++ {
			value.Index(i).Set(input.read(kind.Elem()))
		}
	case assay_reflect.Array:
		if input.count("l") != kind.Len() {
			panic("a list of another length")
		}
		for i := 0; i < kind.Len(); i++ {
			value.Index(i).Set(input.read(kind.Elem()))
		}
	case assay_reflect.Interface:
		if found := input.natural(); found != nil && kind.NumMethod() == 0 {
			value.Set(assay_reflect.ValueOf(found))
		}
	case assay_reflect.Map:
		if input.null() {
			break
		}
		count := input.count("d")
		value.Set(assay_reflect.MakeMap(kind))
		for i := 0; i < count; i++ {
			key := input.read(kind.Key())
			value.SetMapIndex(key, input.read(kind.Elem()))
		}
	case assay_reflect.Pointer:
		if input.null() {
			break
		}
		value.Set(assay_reflect.New(kind.Elem()))
		value.Elem().Set(input.read(kind.Elem()))
	default:
		panic("the function has a parameter of a type that no argument can have")
	}
	return value
}

func assay_written(value assay_reflect.Value, depth int) string {
	if depth > 200 {
		return `["O","too deep"]`
	}
	// of a slice or a map that is nil the declared type decides, outside: null where that allows it, or else empty
	if (value.Kind() == assay_reflect.Slice || value.Kind() == assay_reflect.Map) && value.IsNil() {
		return `["N"]`
	}
	switch value.Kind() {
	case assay_reflect.Bool:
		if value.Bool() {
			return `["b",1]`
		}
		return `["b",0]`
	case assay_reflect.Int, assay_reflect.Int8, assay_reflect.Int16, assay_reflect.Int32, assay_reflect.Int64:
		return `["i","` + assay_strconv.FormatInt(value.Int(), 16) + `"]`
	case assay_reflect.Uint, assay_reflect.Uint8, assay_reflect.Uint16, assay_reflect.Uint32, assay_reflect.Uint64:
		return `["i","` + assay_strconv.FormatUint(value.Uint(), 16) + `"]`
	case assay_reflect.Float32, assay_reflect.Float64:
		return assay_fmt.Sprintf(`["D","%016x"]`, assay_math.Float64bits(value.Float()))
	case assay_reflect.String:
		return `["u","` + assay_hex.EncodeToString([]byte(value.String())) + `"]`
	case assay_reflect.Slice, assay_reflect.Array:
		parts := make([]string, value.Len())
		for i := range parts {
			parts[i] = assay_written(value.Index(i), depth+1)
		}
		return `["l",[` + assay_strings.Join(parts, ",") + `]]`
	case assay_reflect.Map:
		parts := []string{}
		for _, key := range value.MapKeys() {
			item := assay_written(value.MapIndex(key), depth+1)
			// the keys of a map are texts: a rune or a byte is one of one letter
			if key.Kind() == assay_reflect.Int32 || key.Kind() == assay_reflect.Uint8 {
				key = key.Convert(assay_reflect.TypeOf("")) // as string(rune) does
			}
			parts = append(parts, "["+assay_written(key, depth+1)+","+item+"]")
		}
		return `["d",[` + assay_strings.Join(parts, ",") + `]]`
	case assay_reflect.Pointer:
		if value.IsNil() {
			return `["N"]`
		}
		return assay_written(value.Elem(), depth+1)
	case assay_reflect.Interface:
		if value.IsNil() {
			return `["N"]`
		}
		return assay_written(value.Elem(), depth+1)
	}
	return `["O","another type"]`
}

func assay_called(function any) (reply string) {
	defer func() {
		if problem := recover(); problem != nil {
			text := assay_strings.ToValidUTF8(assay_fmt.Sprint(problem), "?")
			if len(text) > 500 {
				text = text[:500]
			}
			reply = "E" + assay_strings.ReplaceAll(assay_strconv.QuoteToASCII(text), `\x`, "?")
		}
	}()
	call := assay_reflect.ValueOf(function)
	arguments := make([]assay_reflect.Value, call.Type().NumIn())
	for i := range arguments {
		arguments[i] = assay_given.read(call.Type().In(i))
	}
	var returned []assay_reflect.Value
	if call.Type().IsVariadic() {
		returned = call.CallSlice(arguments)
	} else {
		returned = call.Call(arguments)
	}
	if len(returned) != 1 {
		return `V["O","not one value"]`
	}
	return "V" + assay_written(returned[0], 0)
}

func main() {
	channel := assay_os.NewFile(3, "channel")
	assay_io.WriteString(channel, assay_given.tokens[0]+"\n"+assay_called(assay_function))
	assay_os.Exit(0)
}
