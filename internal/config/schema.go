package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

//go:generate go test -run "^(TestSchemaIsCurrent|TestReferenceIsCurrent)$" -rewrite .

// A schema is a JSON Schema, as far as the settings need it.
type schema struct {
	Schema      string     `json:"$schema,omitempty"`
	Title       string     `json:"title,omitempty"`
	Description string     `json:"description,omitempty"`
	Default     any        `json:"default,omitempty"`
	Examples    []any      `json:"examples,omitempty"`
	AnyOf       []*schema  `json:"anyOf,omitempty"`
	Type        any        `json:"type,omitempty"`
	Enum        []string   `json:"enum,omitempty"`
	Pattern     string     `json:"pattern,omitempty"`
	Minimum     *int64     `json:"minimum,omitempty"`
	Maximum     *int64     `json:"maximum,omitempty"`
	Properties  properties `json:"properties,omitempty"`
	Required    []string   `json:"required,omitempty"`
	Items       *schema    `json:"items,omitempty"`
	ItemsMin    int        `json:"minItems,omitempty"`
	ItemsUnique bool       `json:"uniqueItems,omitempty"`
	NamePattern *schema    `json:"propertyNames,omitempty"`
	CountMin    int        `json:"minProperties,omitempty"`
	Additional  any        `json:"additionalProperties,omitempty"`
}

// properties keep their order, which is that of the documentation.
type properties []property

type property struct {
	name   string
	schema *schema
}

func (ps properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := encodeJSON(p.schema)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", p.name, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return b.Bytes(), err
}

// Schema is the JSON Schema (draft 7) of the configuration file.
func Schema() []byte {
	top := root.schema()
	top.Schema = "http://json-schema.org/draft-07/schema#"
	top.Title = "unstale.yaml"
	top.Description = "Configuration of Unstale, which keeps a Redis cache coherent with PostgreSQL."
	compact, err := encodeJSON(top)
	if err != nil {
		panic(fmt.Sprintf("encode the schema: %v", err))
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		panic(fmt.Sprintf("indent the schema: %v", err))
	}
	return b.Bytes()
}

const (
	// Any value may come from the environment.
	variableAnywhere = `\$\{`
	durationText     = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
)

func (s *setting) schema() *schema {
	if s.at == nil {
		return s.mappingSchema()
	}
	out := &schema{}
	variable := &schema{Type: "string", Pattern: variableAnywhere}
	switch s.at(new(Config), new(Entry)).(type) {
	case *int:
		out.AnyOf = []*schema{{Type: "integer", Minimum: &s.min, Maximum: &s.max}, variable}
	case *bool:
		out.AnyOf = []*schema{{Type: "boolean"}, variable}
	case *[]string:
		list := &schema{Type: "array", Items: &schema{Type: "string"}, ItemsMin: 1, ItemsUnique: true}
		if s.alone {
			list = &schema{AnyOf: []*schema{{Type: "string"}, list}}
		}
		out = list
	case *time.Duration:
		out.Type, out.Pattern = "string", durationText+"|"+variableAnywhere
	default:
		out.Type = "string"
		if len(s.enum) > 0 {
			out.Type = nil
			out.AnyOf = []*schema{{Enum: s.enum}, variable}
		}
	}
	out.Description = s.doc
	if s.initial != "" {
		out.Default = s.typed(s.initial)
	}
	if s.example != "" {
		out.Examples = []any{s.typed(s.example)}
	}
	return out
}

// typed is the text as JSON would have it.
func (s *setting) typed(text string) any {
	switch s.at(new(Config), new(Entry)).(type) {
	case *int, *bool:
		return json.RawMessage(text)
	case *[]string:
		return strings.Split(strings.Trim(text, "[]"), ", ")
	}
	return text
}

func (s *setting) mappingSchema() *schema {
	out := &schema{Type: "object", Additional: false}
	for _, c := range s.children() {
		if c.name() == "*" {
			out.Additional = c.schema()
			if c.path == "entries.*" {
				out.NamePattern = &schema{Pattern: entryNamePattern.String()}
			}
			out.CountMin = 1
			continue
		}
		out.Properties = append(out.Properties, property{c.name(), c.schema()})
		switch {
		case c.unless != "":
			mapping, name, _ := strings.Cut(c.unless, ".")
			beside := &schema{Required: []string{mapping}, Properties: properties{{mapping, &schema{Required: []string{name}}}}}
			out.AnyOf = []*schema{{Required: []string{c.name()}}, beside}
		case c.isKind():
			out.AnyOf = append(out.AnyOf, &schema{Required: []string{c.name()}})
		case c.required:
			out.Required = append(out.Required, c.name())
		}
	}
	if s.short != "" {
		plain := s.child(s.short).schema()
		plain.Description, plain.Examples = "", nil
		out = &schema{AnyOf: []*schema{plain, out}}
	} else if !s.required && s.path != "" && s.path != "entries.*" && len(out.Required) == 0 && out.CountMin == 0 {
		// All keys below may be commented out.
		out.Type = []string{"object", "null"}
	}
	out.Description = s.doc
	return out
}
