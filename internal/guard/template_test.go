package guard_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/guard"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories in testdata should say")

// testdata/templates.txt: stories parted by empty lines. A template, and how it
// reads its columns and renders its keys, or what is wrong with it and where.
func TestTemplates(t *testing.T) {
	const path = "testdata/templates.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for story := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n\n") {
		input, want, _ := strings.Cut(story, "----")
		var got strings.Builder
		for line := range strings.Lines(input) {
			if command, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); command == "template" {
				describe(&got, unquote(t, rest))
			}
		}
		want, output := strings.TrimSpace(want), strings.TrimSpace(got.String())
		if diff := cmp.Diff(want, output); diff != "" && !*rewrite {
			t.Errorf("%s(-want +got):\n%s", input, diff)
		}
		written = append(written, input+"----\n"+output)
	}
	if *rewrite {
		if err := os.WriteFile(path, []byte(strings.Join(written, "\n\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unquote reads a template as the story has it: quoted if it could not be read
// otherwise.
func unquote(t *testing.T, text string) string {
	if !strings.HasPrefix(text, `"`) {
		return text
	}
	plain, err := strconv.Unquote(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return plain
}

func describe(w *strings.Builder, text string) {
	template, err := guard.ParseTemplate(text)
	if wrong, ok := errors.AsType[*guard.TemplateError](err); ok {
		before := utf8.RuneCountInString(strings.TrimSuffix(strconv.Quote(text[:wrong.Offset]), `"`))
		fmt.Fprintf(w, "%s\n%s^ %s; %s\n", strconv.Quote(text), strings.Repeat(" ", before), wrong.Text, wrong.Mend)
		return
	}
	columns := template.Columns()
	fmt.Fprintf(w, "columns %s\n", strings.Join(columns, " "))
	for _, value := range []string{"7", "x:{%}\n"} {
		values := make([]string, len(columns))
		for i := range values {
			values[i] = value
		}
		key := template.Key(values...)
		side, ok := guard.SideKey(key)
		if !ok {
			side = "none"
		}
		fmt.Fprintf(w, "key %s side %s\n", key, side)
	}
}

func template(t interface{ Fatalf(string, ...any) }, text string) *guard.Template {
	parsed, err := guard.ParseTemplate(text)
	if err != nil {
		t.Fatalf("template %q: %v", text, err)
	}
	return parsed
}

// texts are templates of every form, each with its number of columns.
var texts = []string{
	"product:{id}", "{id}", "a{id}b", "100%{id}", "{id}:", "%41{id}",
	"{a}:{b}", "x:{a}:{b}:{c}", "x{a}x:{b}x", "{a}:x{b}x:y", "{a}%:{b}", "%{a}::{b}%",
	"{{tag}}:{id}", "{{{id}}}:cart", "x:{{{a}}}:{b}", "{a}{{{b}}}", "{a}}}{{{b}}}", "{{{a}:{b}}}", "{{t}}{a}:{b}", "x:{a}:{{{b}}}",
}

// values draws what PostgreSQL could print, with what a key gives a meaning to
// frequent.
func values() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			":", "::", "%", "%3A", "%25", "3A", "{", "}", "{}", "{x}", "\x00", "\n", "\x1f", "\x7f", "a", "x", "x:", "y", "7", "é", "\xff", " ", "l", ":l",
		}), 0, 6).Draw(t, "parts"), "")
	})
}

func rowOf(t *rapid.T, template *guard.Template, label string) []string {
	return rapid.SliceOfN(values(), len(template.Columns()), len(template.Columns())).Draw(t, label)
}

// Two rows under one key would be served for each other.
func TestTwoRowsNeverShareAKey(t *testing.T) {
	for _, text := range texts {
		t.Run(text, func(t *testing.T) {
			template := template(t, text)
			rapid.Check(t, func(t *rapid.T) {
				a, b := rowOf(t, template, "a"), rowOf(t, template, "b")
				if template.Key(a...) == template.Key(b...) && !slices.Equal(a, b) {
					t.Fatalf("rows %q and %q share the key %q", a, b, template.Key(a...))
				}
			})
		})
	}
}

// The same, made hard: what stands between two values is cut from the middle of
// one text at every place where it occurs.
func TestNoTwoCutsOfATextShareAKey(t *testing.T) {
	for _, text := range texts {
		template := template(t, text)
		if len(template.Columns()) != 2 {
			continue
		}
		seen := map[string][2]string{}
		alphabet := []string{"", ":", "x", "%", "3A", "{", "}", "x:", ":x"}
		for i := range len(alphabet) * len(alphabet) * len(alphabet) * len(alphabet) {
			n := len(alphabet)
			row := [2]string{alphabet[i%n] + alphabet[i/n%n], alphabet[i/n/n%n] + alphabet[i/n/n/n]}
			key := template.Key(row[0], row[1])
			if other, ok := seen[key]; ok && other != row {
				t.Fatalf("%s: rows %q and %q share the key %q", text, other, row, key)
			}
			seen[key] = row
		}
	}
}

// A sweep finds its keys by Matches; one that it missed would stay stale.
func TestATemplateMatchesItsKeys(t *testing.T) {
	for _, text := range texts {
		t.Run(text, func(t *testing.T) {
			template := template(t, text)
			rapid.Check(t, func(t *rapid.T) {
				row := rowOf(t, template, "row")
				if key := template.Key(row...); !template.Matches(key) {
					t.Fatalf("key %q of row %q does not match", key, row)
				}
			})
		})
	}
}

// What is swept of a template with some values filled in are its keys with these values:
// all of them, and no others that the template itself matches.
func TestAPartMatchesTheKeysWithItsValues(t *testing.T) {
	for _, text := range texts {
		template := template(t, text)
		if len(template.Columns()) < 2 {
			continue
		}
		rapid.Check(t, func(t *rapid.T) {
			row, other := rowOf(t, template, "row"), rowOf(t, template, "other")
			known := make([]bool, len(row))
			for i := range known {
				known[i] = rapid.Bool().Draw(t, "known")
			}
			around := template.Around(func(i int) bool { return known[i] })
			var text []byte
			alike := true
			for i, value := range row {
				if known[i] {
					text = template.AppendValue(append(text, around[0]...), []byte(value))
					around, alike = around[1:], alike && other[i] == value
				}
			}
			part, err := guard.ParseTemplate(string(text) + around[0])
			if err != nil {
				return // all keys are swept then
			}
			if key := template.Key(row...); !part.Matches(key) {
				t.Fatalf("%s does not match %q", part, key)
			}
			if key := template.Key(other...); part.Matches(key) != alike {
				t.Fatalf("%s matches %q: %v", part, key, !alike)
			}
		})
	}
}

// A sweep that took other keys along would throw away what is good.
func TestATemplateMatchesNoOthers(t *testing.T) {
	for _, test := range []struct {
		template string
		keys     []string
	}{
		{"product:{id}", []string{"", "product", "product:", "product:7\n", "products:7", "xproduct:7", "product:{7}", "product:%", "product:%4", "product:%zz", "product:%3a", "product:\x00"}},
		{"user:{id}:cart", []string{"user:7", "user:7:carts", "user:7:car", "user:{7}:cart", "auser:7:cart"}},
		{"{a}:{b}", []string{"a", "a:b:c", "{a}:b"}},
		{"{{{id}}}:cart", []string{"7:cart", "{7}:carts", "{{7}}:cart", "{7:cart", "{7}:l:{7}:cart"}},
		{"a.{id}", []string{"ab7", "a7"}},
	} {
		template := template(t, test.template)
		for _, key := range test.keys {
			want := key == "product:" // an empty text is a value
			if got := template.Matches(key); got != want {
				t.Errorf("%s, Matches(%q): got %v, want %v", test.template, key, got, want)
			}
		}
	}
}

// What is known of a column's values tells its keys from those of somebody else
// that only begin in the same way. No value of the column may be left out.
func TestANarrowTemplateMatchesWhatItsColumnsCanHold(t *testing.T) {
	const id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	for _, test := range []struct {
		template string
		letters  []guard.Alphabet
		keys     []string
		foreign  []string
	}{
		{"customer:{id}", []guard.Alphabet{guard.Integer}, []string{"customer:0", "customer:-9223372036854775808", "customer:18446744073709551615"},
			[]string{"customer:", "customer:abc", "customer:cart:77", "customer:1:session", "customer:1-1", "customer:-", "customer:1.5", "customer:%31"}},
		{"{id}", []guard.Alphabet{guard.Integer}, []string{"7"}, []string{"", "a", "session:1"}},
		{"session:{id}", []guard.Alphabet{guard.UUID}, []string{"session:" + id, "session:" + strings.ToUpper(id)}, []string{"session:7", "session:" + id + ":x", "session:" + id[1:]}},
		{"flag:{on}", []guard.Alphabet{guard.Boolean}, []string{"flag:t", "flag:f"}, []string{"flag:", "flag:tt", "flag:x"}},
		{"{a}:{b}:x", []guard.Alphabet{guard.AnyText, guard.Integer}, []string{"a%3A:7:x", ":7:x"}, []string{"a:b:x", "7::x"}},
		{"name:{n}", []guard.Alphabet{guard.AnyText}, []string{"name:", "name:a:b", "name:%7B"}, []string{"name:%", "name:{"}},
		{"name:{n}", []guard.Alphabet{guard.Integer, guard.Integer}, []string{"name:a"}, nil}, // letters of another key
	} {
		narrow := template(t, test.template).Narrow(guard.Letters(test.letters...))
		for _, key := range test.keys {
			if !narrow.Matches(key) {
				t.Errorf("%s of %v does not match %q", test.template, test.letters, key)
			}
		}
		for _, key := range test.foreign {
			if narrow.Matches(key) {
				t.Errorf("%s of %v matches %q", test.template, test.letters, key)
			}
		}
	}
}

// On a cluster the key's slot decides which master applies its changes, and in
// which order with others of the tag; a value that moved it would break both.
func TestNoValueMovesAKeyToAnotherSlot(t *testing.T) {
	for _, text := range []string{"{{tag}}:{id}", "x{{tag}}{id}", "{id}{{tag}}", "x:{a}:{{tag}}:{b}", "{{{a}}}:{b}", "x:{b}:{{{a}}}"} {
		t.Run(text, func(t *testing.T) {
			template := template(t, text)
			rapid.Check(t, func(t *rapid.T) {
				row := rowOf(t, template, "row")
				tag := "tag"
				if at := slices.Index(template.Columns(), "a"); at >= 0 && !strings.Contains(text, "{{tag}}") {
					// The tag is the value, encoded as in any key.
					one := guard.SlotKey(template.Key(slices.Repeat([]string{row[at]}, 2)...))
					if row[at] == "" {
						return
					}
					tag = one
				}
				if got := guard.SlotKey(template.Key(row...)); got != tag {
					t.Fatalf("row %q gives %q, which is hashed by %q, want %q", row, template.Key(row...), got, tag)
				}
			})
		})
	}
}

// What ordinary values look like must not surprise who writes keys by hand.
func TestOrdinaryValuesStandAsTheyAre(t *testing.T) {
	for _, test := range []struct {
		template string
		values   []string
		want     string
	}{
		{"product:{id}", []string{"101"}, "product:101"},
		{"product:{id}", []string{""}, "product:"},
		{"session:{id}", []string{"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, "session:6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		{"page:{url}", []string{"https://example.com/ä b"}, "page:https://example.com/ä b"},
		{"page:{host}:{path}", []string{"a:80", "/b"}, "page:a%3A80:/b"},
		{"discount:{rate}", []string{"5%"}, "discount:5%25"},
	} {
		if got := template(t, test.template).Key(test.values...); got != test.want {
			t.Errorf("%s of %q: got %q, want %q", test.template, test.values, got, test.want)
		}
	}
}

func TestRenderingInPiecesGivesTheKey(t *testing.T) {
	for _, text := range texts {
		template := template(t, text)
		rapid.Check(t, func(t *rapid.T) {
			row := rowOf(t, template, "row")
			got := []byte("before ")
			for i, value := range row {
				got = template.AppendValue(template.AppendLiteral(got, i), []byte(value))
			}
			got = template.AppendLiteral(got, len(row))
			if want := "before " + template.Key(row...); string(got) != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		})
	}
}

func TestEntriesCollideWhoseKeysCouldBeEqual(t *testing.T) {
	kinds := map[string]guard.Alphabet{"n": guard.Integer, "u": guard.UUID, "b": guard.Boolean, "w": guard.Word, "s": guard.AnyText}
	alphabet := func(column string) guard.Alphabet { return kinds[column[:1]] }
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"product:{n}", "product:{n}", true},
		{"product:{n}", "product_page:{n}", false},
		{"product:{n}", "product:{s}", true},
		{"product:{n}", "product:{n}:page", false},
		{"product:{s}", "product:{s}:page", true}, // s may be "7:page"
		{"product:{w}", "product:{w}:page", false},
		{"product:{n1}:{n2}", "product:{s}", true},
		{"product:{n1}:{n2}", "product:{w}", false},
		{"user:{n}", "user:{b}", true}, // both may be empty texts
		{"user:{n}1", "user:{b}t", false},
		{"user:{n}1", "user:{u}f", false},
		{"user:{n}1", "user:{u}1", true},
		{"user:{u}t", "user:{b}", true},
		{"user:{n}x", "user:{w}", true},
		{"user:{s1}:{s2}", "user:{s1}:x:{s2}", false}, // a : in a value is encoded
		{"user:{s1}:%3A{s2}", "user:{s3}:{s4}", true},
		{"a{w}", "ab{w}", true},
		{"a{n}", "ab{n}", false},
		{"{s}", "anything:{s}", true},
		{"{{t}}:{n}", "{{t}}:{s}", true},
		{"{{t}}:{n}", "{{u}}:{n}", false},
		{"{{{n}}}:x{s}", "{{{u}}}:xy{s}", true},
		// The side key of 7 is {7}:l, and so is what the other names for l.
		{"{n}", "{{{n}}}:{w}", true},
		{"{n}", "{{{n}}}:{n2}", false},
		{"{{t}}:{s}", "t{w}", true},
		{"{{t}}:{s}", "v{w}", false},
		{"{{{n1}}}:{n2}", "{{{n1}}}:{w}:{{{n2}}}:{n3}", true},
	} {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			got := template(t, pair[0]).Collide(template(t, pair[1]), alphabet, alphabet)
			if got != test.want {
				t.Errorf("%s and %s: got %v, want %v", pair[0], pair[1], got, test.want)
			}
		}
	}
}

var alphabetsOf = map[guard.Alphabet][]string{
	guard.AnyText: {"", "a", ":", "%", "l", ":l", "x:", "7", "t", "{", "é"},
	guard.Word:    {"", "a", "%", "l", "x", "7", "t", "é"},
	guard.Integer: {"", "7", "1", "-", "12"},
	guard.UUID:    {"", "a", "7", "-", "f1"},
	guard.Boolean: {"t", "f"},
}

// Where Collide says no, no two rows of the entries may meet: neither in their
// keys nor in the key of one and the side key of the other.
func TestEntriesThatDoNotCollideShareNoKey(t *testing.T) {
	pieces := []string{"a", "x", "l", ":", "7", "t", "{{a}}", "{{", "}}", ":l", "%"}
	templates := rapid.Custom(func(t *rapid.T) *guard.Template {
		var text strings.Builder
		columns := rapid.IntRange(1, 2).Draw(t, "columns")
		for c := range columns {
			literal := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 2).Draw(t, "literal"), "")
			fmt.Fprintf(&text, "%s{c%d}", literal, c)
		}
		text.WriteString(strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 2).Draw(t, "literal"), ""))
		template, err := guard.ParseTemplate(text.String())
		if err != nil {
			return nil
		}
		return template
	}).Filter(func(template *guard.Template) bool { return template != nil })
	met, apart := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var sides [2]*guard.Template
		var alphabets [2]func(string) guard.Alphabet
		for i := range sides {
			sides[i] = templates.Draw(t, "template")
			of := []guard.Alphabet{
				guard.Alphabet(rapid.IntRange(0, 4).Draw(t, "alphabet")),
				guard.Alphabet(rapid.IntRange(0, 4).Draw(t, "alphabet")),
			}
			alphabets[i] = func(column string) guard.Alphabet { return of[column[1]-'0'] }
		}
		if sides[0].Collide(sides[1], alphabets[0], alphabets[1]) {
			met++
			return
		}
		apart++
		owner := map[string]int{}
		for i, template := range sides {
			var rows [][]string
			rows = append(rows, nil)
			for _, column := range template.Columns() {
				var longer [][]string
				letters := alphabetsOf[alphabets[i](column)]
				for _, row := range rows {
					for _, first := range letters {
						for _, second := range letters {
							longer = append(longer, append(slices.Clone(row), first+second))
						}
					}
				}
				rows = longer
				if len(rows) > 20_000 {
					rows = rows[:20_000]
				}
			}
			for _, row := range rows {
				key := template.Key(row...)
				names := []string{key}
				if side, ok := guard.SideKey(key); ok {
					names = append(names, side)
				}
				for _, name := range names {
					if other, ok := owner[name]; ok && other != i {
						t.Fatalf("%s and %s share the name %q (row %q)", sides[0], sides[1], name, row)
					}
					owner[name] = i
				}
			}
		}
	})
	if met == 0 || apart == 0 {
		t.Errorf("%d pairs collided and %d did not: nothing was compared", met, apart)
	}
}

// A sweep drops what matches: that must never be a watermark.
func TestNoTemplateMatchesAWatermark(t *testing.T) {
	for _, text := range []string{"{a}:{{{b}}}:{c}:{d}:{e}", "uns{a}:{{{b}}}:{c}:{d}:{e}", "unstale:{{{b}}}:{c}", "{a}{{{b}}}:{c}:{d}:{e}"} {
		template, err := guard.ParseTemplate(text)
		if err != nil {
			continue
		}
		if key := guard.WatermarkKey(0, "6930:5:unstale"); template.Matches(key) {
			t.Errorf("%s matches %s", text, key)
		}
	}
}

// Every error points into the template, and what is accepted renders keys that
// it matches, of a slot that a side key can share.
func FuzzParseTemplate(f *testing.F) {
	for _, text := range texts {
		f.Add(text, "7")
	}
	for _, text := range []string{"", "{", "}", "{}", "{{", "{a}{b}", "{a{b}", "unstale:{a}", "\xff{id}", "{\xff}", "{{x}}:l{id}", "{id}}}"} {
		f.Add(text, "x:%\n")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		template, err := guard.ParseTemplate(text)
		if wrong, ok := errors.AsType[*guard.TemplateError](err); ok {
			if wrong.Offset < 0 || wrong.Offset > len(text) {
				t.Fatalf("offset %d of an error in %q", wrong.Offset, text)
			}
			return
		}
		if err != nil {
			t.Fatalf("got %T, want a *TemplateError", err)
		}
		row := slices.Repeat([]string{value}, len(template.Columns()))
		key := template.Key(row...)
		if !template.Matches(key) {
			t.Fatalf("%q does not match its key %q", text, key)
		}
		if got, ok := template.Values(key); !ok || !slices.Equal(got, row) {
			t.Fatalf("%q reads its key %q as %q, want %q", text, key, got, row)
		}
		if _, ok := guard.SideKey(key); !ok && value != "" {
			t.Fatalf("%q has a key without a side key: %q", text, key)
		}
		if regexp.MustCompile(`^unstale:\{[0-9a-z]*\}:`).MatchString(key) {
			t.Fatalf("%q has a key that could be a watermark: %q", text, key)
		}
	})
}
