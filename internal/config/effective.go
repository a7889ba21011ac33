package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Effective is the configuration with every default filled in and every secret
// hidden, as text that Parse accepts.
func (c *Config) Effective() string {
	var b strings.Builder
	c.print(&b, root, nil, 0)
	return b.String()
}

// print writes the keys below s.
func (c *Config) print(b *strings.Builder, s *setting, e *Entry, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, child := range s.children() {
		if child.path == "entries.*" {
			for i := range c.Entries {
				fmt.Fprintf(b, "%s%s:\n", indent, c.Entries[i].Name)
				c.print(b, child, &c.Entries[i], depth+1)
			}
			continue
		}
		if child.of != "" && child.of != e.over() {
			continue // Parse would not have it
		}
		if child.written && e.OnChange == Invalidate {
			continue // Parse would not have it
		}
		if child.path == "source.postgres" && c.Source.FromKafka || !c.given(child, e) {
			continue // Parse would not have it either
		}
		if child.at == nil {
			var inner strings.Builder
			c.print(&inner, child, e, depth+1)
			if inner.Len() > 0 {
				fmt.Fprintf(b, "%s%s:\n%s", indent, child.name(), inner.String())
			}
			continue
		}
		if names, isList := child.at(c, e).(*[]string); isList {
			if len(*names) > 0 {
				fmt.Fprintf(b, "%s%s: %s\n", indent, child.name(), listYAML(*names))
			}
			continue
		}
		if text, ok := c.text(child, e); ok {
			fmt.Fprintf(b, "%s%s: %s\n", indent, child.name(), scalarYAML(text, plainYAML))
		}
	}
}

// given reports whether a mapping has the keys that it requires. One that was
// left out has only defaults.
func (c *Config) given(mapping *setting, e *Entry) bool {
	for _, child := range mapping.children() {
		if !child.required || child.at == nil {
			continue
		}
		switch at := child.at(c, e).(type) {
		case *[]string:
			if len(*at) == 0 {
				return false
			}
		default:
			if _, ok := c.text(child, e); !ok {
				return false
			}
		}
	}
	return true
}

// fromFile reports whether a secret was read from the file that the setting
// beside it names.
func (c *Config) fromFile(secret *setting, e *Entry) bool {
	for i := range settings {
		if s := &settings[i]; s.path == secret.path+"_file" {
			return *s.at(c, e).(*string) != ""
		}
	}
	return false
}

// text is the value as it would be written, secrets hidden; false if there is
// none.
func (c *Config) text(s *setting, e *Entry) (string, bool) {
	var text string
	switch at := s.at(c, e).(type) {
	case *string:
		text = *at
		if text == "" && s.path == "admin.listen" {
			text = "off"
		}
	case *Secret:
		if !c.fromFile(s, e) {
			text = at.String()
		}
	case *URL:
		text = at.String()
	case *OnChange:
		text = string(*at)
	case tableName:
		if *at.name != "" {
			text = sqlName(*at.name)
		}
		if *at.schema != "" {
			text = sqlName(*at.schema) + "." + text
		}
	case *bool:
		text = strconv.FormatBool(*at)
	case *int:
		text = strconv.Itoa(*at)
	case *time.Duration:
		text = brief(*at)
	default:
		panic(fmt.Sprintf("%s is held by a %T", s.path, at))
	}
	return text, text != ""
}

// sqlName writes a name as parseTable reads it.
func sqlName(name string) string {
	if _, length, f := parseIdentifier(name); f == nil && length == len(name) && !strings.ContainsAny(name, `"`) && !hasUpper(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func hasUpper(name string) bool {
	return strings.ContainsFunc(name, func(r rune) bool { return 'A' <= r && r <= 'Z' })
}

var (
	plainYAML = regexp.MustCompile(`^[A-Za-z0-9_/.]([A-Za-z0-9_/.:@?=&%+*$,{}-]*[A-Za-z0-9_/@?=&%+*$}-])?$`)
	// Inside a list commas, colons and braces mean something.
	plainName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

func listYAML(names []string) string {
	written := make([]string, len(names))
	for i, name := range names {
		written[i] = scalarYAML(name, plainName)
	}
	return "[" + strings.Join(written, ", ") + "]"
}

// scalarYAML writes a value so that it is read back as it is, without quotes
// where it looks like plain.
func scalarYAML(text string, plain *regexp.Regexp) string {
	text = strings.ReplaceAll(text, "$", "$$")
	if plain.MatchString(text) && !slices.Contains([]string{"null", "Null", "NULL"}, text) {
		return text
	}
	// JSON's strings are YAML's double-quoted scalars.
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(fmt.Sprintf("encode %q: %v", text, err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Format prints the effective configuration, whatever the verb. The text of the
// file, which may hold secrets, is inside a Config and would come out with it.
func (c Config) Format(f fmt.State, _ rune) { io.WriteString(f, c.Effective()) }
