package config

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Both test packages of this folder share the flag.
var _ = flag.Bool("rewrite", false, "write the golden files, the schema and the reference anew")

func rewrite() bool { return flag.Lookup("rewrite").Value.String() == "true" }

// The reference is a table in the documentation for each mapping at the top,
// between two comments. It is written from the settings, so that the two never
// tell different stories.
func TestReferenceIsCurrent(t *testing.T) {
	const path = "../../docs/configuration.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)(<!-- keys of (\w+) -->\n).*?(<!-- end -->)`)
	seen := make(map[string]bool)
	want := section.ReplaceAllStringFunc(string(text), func(found string) string {
		m := section.FindStringSubmatch(found)
		seen[m[2]] = true
		return m[1] + reference(m[2]) + m[3]
	})
	for _, s := range root.children() {
		if !seen[s.name()] {
			t.Errorf("docs/configuration.md has no table of the keys of %s", s.name())
		}
	}
	if rewrite() {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("docs/configuration.md is not current; run go generate ./internal/config (-want +got):\n%s", diff)
	}
}

// A default that the parser refuses would only be found when someone writes it
// out, or when the process starts.
func TestDefaultsAndExamplesAreValid(t *testing.T) {
	for i := range settings {
		s := &settings[i]
		if s.doc == "" {
			t.Errorf("%s has no description", s.path)
		}
		if s.at == nil || s.file {
			continue
		}
		for _, text := range []string{s.initial, s.example} {
			if text == "" || strings.Contains(text, "${") {
				continue
			}
			r := &reader{config: &Config{}}
			texts := []string{text}
			if list, isList := s.typed(text).([]string); isList {
				texts = list
			}
			for _, text := range texts {
				if f := r.set(s, text, &Entry{}); f != nil {
					t.Errorf("%s: %s: %s", s.path, text, f.text)
				}
			}
		}
	}
}

// reference is the part of docs/configuration.md that lists the keys of one
// mapping and of those below it, as a table.
func reference(section string) string {
	var b strings.Builder
	b.WriteString("| key | default | |\n|---|---|---|\n")
	for i := range settings {
		s := &settings[i]
		if s.path != section && !strings.HasPrefix(s.path, section+".") {
			continue
		}
		path := strings.ReplaceAll(strings.Replace(s.path, dependencyPath, "entries.NAME.depends_on.TABLE", 1), "*", "NAME")
		initial := ""
		switch {
		case s.unless != "":
			initial = "required without `" + s.unless + "`"
		case s.isKind():
			initial = "one of them"
		case s.required:
			initial = "required"
		case s.initial != "":
			initial = "`" + s.initial + "`"
		}
		doc := strings.ReplaceAll(s.doc, "|", `\|`)
		if len(s.enum) > 1 {
			doc += " One of `" + strings.Join(s.enum, "`, `") + "`."
		}
		switch {
		case s.at == nil:
		case s.max >= int64(time.Millisecond) && s.isDuration():
			doc += fmt.Sprintf(" From `%s` to `%s`.", brief(time.Duration(s.min)), brief(time.Duration(s.max)))
		case s.max > 0:
			doc += fmt.Sprintf(" From `%d` to `%d`.", s.min, s.max)
		}
		if s.example != "" && s.at != nil {
			doc += fmt.Sprintf(" Example: `%s`", s.example)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", path, initial, doc)
	}
	return b.String()
}

func (s *setting) isDuration() bool {
	_, ok := s.at(new(Config), new(Entry)).(*time.Duration)
	return ok
}
