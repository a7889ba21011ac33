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
	"unicode"
	"unicode/utf8"
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
		if len(child.of) > 0 && !child.isOf(e.over()) {
			continue // Parse would not have it
		}
		if child.path == "entries.*.depends_on" {
			fmt.Fprintf(b, "%s%s:\n", indent, child.name())
			for i := range e.DependsOn {
				b.WriteString(e.DependsOn[i].YAML(2 * (depth + 1)))
			}
			continue
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

// YAML is the dependency as Parse reads it: lines that are indented by so many spaces.
func (d Dependency) YAML(indent int) string {
	margin := strings.Repeat(" ", indent)
	name := sqlName(d.Table)
	if d.Schema != "" {
		name = sqlName(d.Schema) + "." + name
	}
	name = margin + quotedYAML(name, plainYAML) + ":"
	switch {
	case d.Lookup != "" || len(d.Columns) > 0:
	case d.Sweep:
		return name + " {sweep: true}\n"
	case len(d.Key) == 0:
		return name + " {}\n"
	case len(d.Key) == 1:
		return name + " " + scalarYAML(d.Key[0], plainName) + "\n"
	default:
		return name + " " + listYAML(d.Key) + "\n"
	}
	margin += "  "
	lines := name + "\n"
	switch len(d.Key) {
	case 0:
	case 1:
		lines += margin + "key: " + scalarYAML(d.Key[0], plainName) + "\n"
	default:
		lines += margin + "key: " + listYAML(d.Key) + "\n"
	}
	if d.Lookup != "" {
		lines += margin + "lookup: " + textYAML(d.Lookup, margin+"  ") + "\n"
	}
	if d.Sweep {
		lines += margin + "sweep: true\n"
	}
	if len(d.Columns) > 0 {
		lines += margin + "columns: " + listYAML(d.Columns) + "\n"
	}
	return lines
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
	case *Lookup:
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
	// Neither a comment nor a mapping begins inside.
	plainSQL = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_.,@"'()=<>+*/$ -]|::[a-z])*[A-Za-z0-9_"')]$`)
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
	return quotedYAML(strings.ReplaceAll(text, "$", "$$"), plain)
}

// Scalar writes a value as Parse reads it.
func Scalar(text string) string { return scalarYAML(text, plainYAML) }

// textYAML writes SQL: several lines as such, if each is as plain as that takes.
func textYAML(text, margin string) string {
	lines := strings.Split(text, "\n")
	plain := !slices.ContainsFunc(lines, func(line string) bool {
		return line == "" || line != strings.TrimSpace(line) || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError })
	})
	switch {
	case plain && len(lines) > 1:
		return "|\n" + margin + strings.ReplaceAll(strings.Join(lines, "\n"+margin), "$", "$$")
	case plain && plainSQL.MatchString(text):
		return strings.ReplaceAll(text, "$", "$$")
	}
	return scalarYAML(text, plainYAML)
}

// quotedYAML writes what is not expanded: the name of a table.
func quotedYAML(text string, plain *regexp.Regexp) string {
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
