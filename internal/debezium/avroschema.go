package debezium

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// An avroType is a type of a schema. Types may be shared, and contain
// themselves.
type avroType struct {
	kind       avroKind
	name       string // full, of a record, enum or fixed
	fields     []avroField
	branches   []*avroType // of a union
	element    *avroType   // of an array, or the values of a map
	symbols    []string
	size       int // of a fixed
	logical    string
	parameters map[string]string
	connect    string          // connect.type: int8, int16
	fallback   json.RawMessage // connect.default

	// A value takes at least min bytes, and if it is fixed no more.
	min   int
	fixed bool
	skip  *program // steps over one, compiled when it is needed
}

type avroField struct {
	name     string
	of       *avroType
	fallback json.RawMessage // nil if there is none
}

type avroKind uint8

const (
	avroNull avroKind = iota + 1
	avroBoolean
	avroInt
	avroLong
	avroFloat
	avroDouble
	avroBytes
	avroString
	avroArray
	avroMap
	avroUnion
	avroRecord
	avroEnum
	avroFixed
)

var avroPrimitives = map[string]avroKind{
	"null": avroNull, "boolean": avroBoolean, "int": avroInt, "long": avroLong,
	"float": avroFloat, "double": avroDouble, "bytes": avroBytes, "string": avroString,
}

// parseAvro reads the text of a schema.
func parseAvro(text string) (*avroType, error) {
	if len(text) > schemaBytes {
		return nil, fmt.Errorf("a schema of %d bytes, more than %d", len(text), schemaBytes)
	}
	p := avroParser{named: map[string]*avroType{}}
	t, err := p.parse(json.RawMessage(text), "", 0)
	if err != nil {
		return nil, err
	}
	return t, nil
}

type avroParser struct {
	named map[string]*avroType
}

var errDeep = errors.New("the schema is nested too deeply")

func (p *avroParser) parse(text json.RawMessage, namespace string, depth int) (*avroType, error) {
	if depth > nestingMax {
		return nil, errDeep
	}
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0:
		return nil, errors.New("a type is missing")
	case text[0] == '"':
		var name string
		if err := json.Unmarshal(text, &name); err != nil {
			return nil, err
		}
		return p.lookup(name, namespace)
	case text[0] == '[':
		var texts []json.RawMessage
		if err := json.Unmarshal(text, &texts); err != nil {
			return nil, err
		}
		union := &avroType{kind: avroUnion}
		for _, branch := range texts {
			t, err := p.parse(branch, namespace, depth+1)
			if err != nil {
				return nil, err
			}
			union.branches = append(union.branches, t)
		}
		union.measure()
		return union, nil
	}
	return p.object(text, namespace, depth)
}

// lookup is the type of a name: a primitive one, or one that was defined before.
func (p *avroParser) lookup(name, namespace string) (*avroType, error) {
	if kind, ok := avroPrimitives[name]; ok {
		t := &avroType{kind: kind}
		t.measure()
		return t, nil
	}
	if t := p.named[fullName(name, namespace)]; t != nil {
		return t, nil
	}
	if t := p.named[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("the schema uses the type %q before it defines it", name)
}

func fullName(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return name
	}
	return namespace + "." + name
}

func (p *avroParser) object(text json.RawMessage, namespace string, depth int) (*avroType, error) {
	var o struct {
		Type       json.RawMessage            `json:"type"`
		Name       string                     `json:"name"`
		Namespace  *string                    `json:"namespace"`
		Fields     []json.RawMessage          `json:"fields"`
		Items      json.RawMessage            `json:"items"`
		Values     json.RawMessage            `json:"values"`
		Symbols    []string                   `json:"symbols"`
		Size       int                        `json:"size"`
		Logical    string                     `json:"connect.name"`
		Connect    string                     `json:"connect.type"`
		Fallback   json.RawMessage            `json:"connect.default"`
		Parameters map[string]json.RawMessage `json:"connect.parameters"`
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	var kind string
	if json.Unmarshal(o.Type, &kind) != nil {
		return p.parse(o.Type, namespace, depth+1)
	}
	t := &avroType{logical: o.Logical, connect: o.Connect, fallback: o.Fallback, symbols: o.Symbols, size: o.Size}
	for name, text := range o.Parameters {
		var value string
		if json.Unmarshal(text, &value) == nil {
			if t.parameters == nil {
				t.parameters = map[string]string{}
			}
			t.parameters[name] = value
		}
	}
	var err error
	switch kind {
	case "record", "error", "enum", "fixed":
		if o.Namespace != nil {
			namespace = *o.Namespace
		}
		t.name = fullName(o.Name, namespace)
		if dot := strings.LastIndexByte(t.name, '.'); dot >= 0 {
			namespace = t.name[:dot]
		}
		if p.named[t.name] != nil {
			return nil, fmt.Errorf("the schema defines the type %q twice", t.name)
		}
		p.named[t.name] = t
		t.min = 1
		switch kind {
		case "enum":
			t.kind = avroEnum
		case "fixed":
			if t.kind = avroFixed; t.size < 0 {
				return nil, fmt.Errorf("the type %q has a size of %d", t.name, t.size)
			}
		default:
			t.kind = avroRecord
			t.fields, err = p.fields(o.Fields, namespace, depth)
		}
	case "array":
		t.kind = avroArray
		t.element, err = p.parse(o.Items, namespace, depth+1)
	case "map":
		t.kind = avroMap
		t.element, err = p.parse(o.Values, namespace, depth+1)
	default:
		primitive, ok := avroPrimitives[kind]
		if !ok {
			return p.lookup(kind, namespace)
		}
		t.kind = primitive
	}
	if err != nil {
		return nil, err
	}
	t.measure()
	return t, nil
}

func (p *avroParser) fields(texts []json.RawMessage, namespace string, depth int) ([]avroField, error) {
	fields := make([]avroField, len(texts))
	for i, text := range texts {
		var o struct {
			Name     string          `json:"name"`
			Type     json.RawMessage `json:"type"`
			Fallback json.RawMessage `json:"default"`
		}
		if err := json.Unmarshal(text, &o); err != nil {
			return nil, err
		}
		t, err := p.parse(o.Type, namespace, depth+1)
		if err != nil {
			return nil, err
		}
		fields[i] = avroField{name: o.Name, of: t, fallback: o.Fallback}
	}
	return fields, nil
}

// sizeMax is where sizes end to grow.
const sizeMax = math.MaxInt / 2

// measure says how many bytes a value takes, from the types inside, which are
// measured before: but for a record that is met inside of itself. Behind a union,
// an array or a map, so that it ends, it takes at least a byte.
func (t *avroType) measure() {
	t.min, t.fixed = 0, true
	switch t.kind {
	case avroNull:
	case avroBoolean:
		t.min = 1
	case avroFloat:
		t.min = 4
	case avroDouble:
		t.min = 8
	case avroFixed:
		t.min = min(t.size, sizeMax)
	case avroRecord:
		for _, f := range t.fields {
			t.min = min(t.min+f.of.min, sizeMax)
			t.fixed = t.fixed && f.of.fixed
		}
	default:
		t.min, t.fixed = 1, false
	}
}
