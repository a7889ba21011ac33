package debezium_test

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/value"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories in testdata should say")

// storyTable is the table of the stories: its messages were recorded, by
// TestDebeziumsMessagesAreRecorded in test/e2e.
func storyTable() *debezium.Table {
	kind := &value.Type{OID: 20000, Name: "kind", Kind: value.Enum}
	t := &debezium.Table{Key: []string{"id"}, Defaulted: []string{"n"}}
	for _, c := range []struct {
		name    string
		of      *value.Type
		typeMod int32
	}{
		{"id", base(23), -1}, {"weird-col", base(25), -1}, {"price", base(1700), typeMod(10, 2)}, {"at", base(1184), -1}, {"made", base(1114), 3}, {"day", base(1082), -1},
		{"raw", base(17), -1}, {"tags", arrayOf(25), -1}, {"kind", kind, -1}, {"doc", base(3802), -1}, {"long", base(25), -1}, {"n", base(23), -1},
		{"pairs", hstoreType(), -1}, {"ratio", base(701), -1}, {"extra", base(23), -1},
	} {
		t.Shape.Columns = append(t.Shape.Columns, value.Column{Name: c.name, TypeOID: c.of.OID, TypeMod: c.typeMod, Type: c.of})
	}
	return t
}

// A story is a file in testdata: what a topic held, and below each part what that
// is taken for.
type story struct {
	t       *testing.T
	table   *debezium.Table
	schemas map[uint32]string
	decoder *debezium.Decoder
	key     []byte
}

// What Debezium sent is what PostgreSQL had.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &story{t: t, table: storyTable(), schemas: map[uint32]string{}}
			options := testOptions(nil, nil)
			options.Schema = func(_ context.Context, id uint32) (string, error) {
				if schema, ok := s.schemas[id]; ok {
					return schema, nil
				}
				return "", fmt.Errorf("no schema %d", id)
			}
			options.Table = func(_, _ string) *debezium.Table { return s.table }
			options.Compile = func(r *change.Relation) (all []int) {
				for i := range r.Columns {
					all = append(all, i)
				}
				return all
			}
			s.decoder = debezium.NewDecoder(options)
			var got strings.Builder
			for block := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n\n") {
				input, _, ok := strings.Cut(block, "----\n")
				if !ok {
					input = strings.TrimSuffix(block, "----")
				}
				fmt.Fprintf(&got, "%s----\n%s\n", input, s.tell(input))
			}
			want := strings.TrimRight(got.String(), "\n") + "\n"
			if *rewrite {
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(text), want); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// tell reads a part of a story.
func (s *story) tell(input string) string {
	var told strings.Builder
	for line := range strings.Lines(input) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "#":
		case "schema":
			var id uint32
			if _, err := fmt.Sscan(rest, &id); err != nil {
				s.t.Fatal(err)
			}
			_, s.schemas[id], _ = strings.Cut(rest, " ")
		case "full":
			full := *s.table
			full.Full, full.Key = true, nil
			s.table = &full
			s.decoder.Forget()
		case "key":
			s.key = s.message(rest)
		case "value":
			var e debezium.Event
			if err := s.decoder.Decode(s.t.Context(), s.key, s.message(rest), &e); err != nil {
				s.t.Fatal(err)
			}
			told.WriteString(s.event(&e))
		default:
			s.t.Fatalf("%q is no line of a story", line)
		}
	}
	return told.String()
}

func (s *story) message(text string) []byte {
	switch {
	case text == "null":
		return nil
	case text[0] == '{':
		return []byte(text)
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

var (
	kindNames     = map[debezium.Kind]string{debezium.Other: "other", debezium.Truncate: "truncate", debezium.Tombstone: "tombstone"}
	opNames       = map[byte]string{'c': "insert", 'u': "update", 'd': "delete", 'r': "read"}
	snapshotNames = map[debezium.Snapshot]string{debezium.Initial: ", by a snapshot", debezium.Incremental: ", by an incremental snapshot"}
)

func (s *story) event(e *debezium.Event) string {
	var b strings.Builder
	name := kindNames[e.Kind]
	if e.Kind == debezium.Row {
		name = opNames[e.Op]
	}
	b.WriteString(name)
	if e.Source.Table == "" {
		b.WriteString(", nobody knows of which table")
	} else {
		fmt.Fprintf(&b, " %s.%s", e.Source.Schema, e.Source.Table)
	}
	b.WriteString(snapshotNames[e.Snapshot] + "\n")
	for _, part := range []struct {
		name string
		row  change.Row
	}{{"old", e.Old}, {"new", e.New}} {
		if part.row.Kind == change.Absent {
			continue
		}
		columns := slices.DeleteFunc(show(e.Relation, part.row), func(column string) bool {
			return part.row.Kind == change.IdentityOnly && strings.HasSuffix(column, "=(missing)")
		})
		for i, column := range columns {
			if len(column) > 100 {
				columns[i] = fmt.Sprintf("%s... of %d bytes", column[:20], len(column))
			}
		}
		fmt.Fprintf(&b, "  %s: %s\n", part.name, strings.Join(columns, " | "))
	}
	return b.String()
}
