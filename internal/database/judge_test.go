package database

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/value"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files instead of comparing")

// Each paragraph of the file says what is unusual about a server that is
// otherwise as it should be, and then what the operator is told.
func TestWhatTheOperatorIsToldAboutAServer(t *testing.T) {
	const file = "testdata/problems.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rewritten []string
	for _, story := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
		input, want, _ := strings.Cut(story, "\n----")
		var got strings.Builder
		s, needs := parseStory(t, input)
		for _, p := range judge(s, needs) {
			fmt.Fprintf(&got, "\n%s", p)
			if p.Entry != "" {
				fmt.Fprintf(&got, "\n  at %s of entry %s", p.Setting, p.Entry)
			}
			if p.Column != "" {
				fmt.Fprintf(&got, ", column %s", p.Column)
			}
		}
		rewritten = append(rewritten, input+"\n----"+got.String())
		if diff := cmp.Diff(want, got.String()); diff != "" && !*rewrite {
			t.Errorf("%s\n(-want +got)\n%s", input, diff)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.Join(rewritten, "\n\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// parseStory reads lines of "what field=value ...": server, foreign (somebody else
// reads the log), setting, session, slot, publication, table, part (of the table above), name (a table that no entry
// wants) and entry.
func parseStory(t *testing.T, input string) (*server, Needs) {
	s := &server{
		Version: 150018, Database: "shop", Asking: "app", Role: "app",
		ReadAllStats: true, ControlSystem: true, Replication: true, MayCreate: true,
		Settings: map[string]setting{
			"wal_level":                 {Value: "logical"},
			"max_wal_senders":           {Value: "10"},
			"max_replication_slots":     {Value: "10"},
			"max_slot_wal_keep_size":    {Value: "10240"},
			"synchronous_standby_names": {Value: ""},
		},
		Sessions: map[string]string{"bytea_output": "hex", "extra_float_digits": "1", "intervalstyle": "postgres"},
		Tables:   map[Name]inspected{},
	}
	needs := Needs{Slot: "unstale", Publication: "unstale", ApplicationName: "unstale"}
	var last Name
	lines := bufio.NewScanner(strings.NewReader(input))
	for lines.Scan() {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		f := fields{t: t, values: map[string]string{}}
		for _, field := range strings.Fields(rest) {
			name, value, _ := strings.Cut(field, "=")
			f.values[name] = value
		}
		switch what {
		case "#":
			continue
		case "server":
			s.Version = f.number("version", s.Version)
			s.Standby = f.flag("standby", s.Standby)
			s.Managed = f.text("managed", s.Managed)
			s.Superuser = f.flag("superuser", s.Superuser)
			s.Replication = f.flag("replication", s.Replication)
			s.ReadAllStats = f.flag("stats", s.ReadAllStats)
			s.ControlSystem = f.flag("control", s.ControlSystem)
			s.MayCreate = f.flag("create", s.MayCreate)
			s.Senders = f.number("senders", s.Senders)
			s.Standbys = f.list("standbys")
			s.Unnamed = f.number("unnamed", s.Unnamed)
		case "foreign":
			needs.Foreign, needs.Reader = true, strings.ReplaceAll(f.text("reader", ""), "_", " ")
		case "setting":
			s.Settings[f.text("name", "")] = setting{
				Value:   strings.ReplaceAll(f.text("value", ""), "_", " "),
				Source:  strings.ReplaceAll(f.text("source", ""), "_", " "),
				Pending: f.flag("pending", false),
			}
		case "session":
			s.Sessions[f.text("name", "")] = f.text("value", "")
		case "slot":
			s.Slots = append(s.Slots, slot{
				Name: f.text("name", "unstale"), Type: f.text("type", "logical"), Plugin: f.text("plugin", "pgoutput"),
				Database: f.text("database", "shop"), Active: f.flag("active", false),
				WALStatus: f.text("wal", "reserved"),
			})
		case "publication":
			s.Publication = &publication{
				Owned: f.flag("owned", true), Insert: f.flag("insert", true), Update: f.flag("update", true),
				Delete: f.flag("delete", true), Truncate: f.flag("truncate", true), ViaRoot: f.flag("viaroot", true),
				GeneratedColumns: f.text("generated", "n"),
			}
		case "table":
			r := f.relation(len(s.Tables))
			last = r.Name
			table := inspected{
				Table: Table{Asked: r.Name, Relation: r},
				Owned: f.flag("owned", true), Published: f.flag("published", true),
				Filtered: f.flag("filtered", false), Listed: f.flag("listed", false),
				Usable: f.flag("usable", true), Hidden: f.flag("hidden", false),
			}
			if root := f.text("root", ""); root != "" {
				name := parseName(root)
				table.Root = &name
			}
			for i, column := range f.list("columns") {
				part := append(strings.Split(column, ":"), "", "", "")
				c := Column{
					Number: i + 1, Name: part[0], TypeName: part[1], TypeMod: -1, Deterministic: true,
					Base: Base{Schema: "pg_catalog", Name: part[1], Type: "b"}, Generated: part[2], Long: part[3] == "long", Readable: part[3] != "secret",
				}
				table.Columns = append(table.Columns, c)
				table.Shape.Columns = append(table.Shape.Columns, value.Column{Name: c.Name, Type: &value.Type{OID: typeOIDs[c.TypeName], Name: c.TypeName}})
			}
			for _, index := range append([]string{f.text("pk", "")}, f.list("unique")...) {
				if index != "" {
					table.Unique = append(table.Unique, strings.FieldsFunc(index, func(r rune) bool { return r == ',' || r == '+' }))
				}
			}
			s.Tables[last] = table
		case "part":
			table := s.Tables[last]
			r := f.relation(100 + len(table.Below))
			r.Partition = f.flag("partition", true)
			table.Below = append(table.Below, r)
			s.Tables[last] = table
		case "name":
			s.Names = append(s.Names, parseName(rest))
		case "entry":
			needs.Tables = append(needs.Tables, TableNeed{
				Entry: f.text("name", ""), Name: parseName(f.text("table", "")),
				KeyColumns: f.list("key"), Passed: f.list("passed"), Found: f.list("found"), Columns: f.list("columns"),
				Written: f.flag("written", false), FromLog: f.flag("fromlog", false), Loaded: f.flag("loaded", false),
			})
		default:
			t.Fatalf("a story has no line %q", lines.Text())
		}
	}
	return s, needs
}

// typeOIDs are what values of a story are made of.
var typeOIDs = map[string]uint32{"int4": 23, "text": 25, "money": 790, "regclass": 2205,
	"bytea": 17, "float4": 700, "float8": 701, "interval": 1186}

func parseName(text string) Name {
	if schema, table, ok := strings.Cut(text, "."); ok {
		return Name{Schema: schema, Table: table}
	}
	return Name{Table: text}
}

type fields struct {
	t      *testing.T
	values map[string]string
}

func (f fields) text(name, otherwise string) string {
	if value, ok := f.values[name]; ok {
		return value
	}
	return otherwise
}

func (f fields) number(name string, otherwise int) int {
	n, err := strconv.Atoi(f.text(name, strconv.Itoa(otherwise)))
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f fields) flag(name string, otherwise bool) bool {
	b, err := strconv.ParseBool(f.text(name, strconv.FormatBool(otherwise)))
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f fields) list(name string) []string {
	if f.values[name] == "" {
		return nil
	}
	return strings.Split(f.values[name], ",")
}

func (f fields) relation(number int) Relation {
	return Relation{
		OID: uint32(f.number("oid", 20000+number)), Name: parseName(f.text("name", "")),
		Kind: Kind(f.text("kind", "r")), Persistence: Persistence(f.text("persistence", "p")),
		Replica: Replica{Setting: f.text("identity", "d"), PrimaryKey: f.list("pk"), Index: f.list("index")},
	}
}
