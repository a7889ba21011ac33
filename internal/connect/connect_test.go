package connect_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/connect"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// need is what the stories are about, but for what each says itself.
func need() *connect.Need {
	return &connect.Need{
		Database:    connect.Database{Host: "db", Port: 5432, User: "unstale", Password: "hunter2", Name: "shop"},
		Slot:        "unstale",
		Publication: "unstale",
		TopicPrefix: "cdc",
		Tables:      []connect.Table{{Schema: "public", Name: "products"}, {Schema: "Weird, Schema", Name: `T"a.b`}},
		Placeholder: "__debezium_unavailable_value",
	}
}

// with is a need that differs in one word, or more.
func with(t *testing.T, words []string) *connect.Need {
	n := need()
	for _, word := range words {
		switch word {
		case "json":
		case "confluent":
			n.Registry = &connect.Registry{URL: "http://registry:8081", Converter: connect.ConfluentAvro}
		case "apicurio":
			n.Registry = &connect.Registry{URL: "https://registry:8443/apis/ccompat/v7", Converter: connect.ApicurioAvro}
		case "login":
			n.Registry.Username, n.Registry.Password = "unstale", "hunter2"
		case "tls":
			n.Database.TLS = map[string]string{"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem", "sslpassword": "hunter2"}
		case "no-prefix":
			n.TopicPrefix = ""
		case "no-database":
			n.Database = connect.Database{}
		case "partitioned":
			n.Partitions = map[connect.Table][]connect.Table{n.Tables[0]: {{Schema: "public", Name: "products_1"}, {Schema: "public", Name: "products_2"}}}
		case "via-root", "not-via-root":
			n.Published = &connect.Publication{Exists: true, ViaRoot: word == "via-root", Tables: n.Tables}
		case "no-publication":
			n.Published = &connect.Publication{}
		case "all-tables":
			n.Published = &connect.Publication{Exists: true, AllTables: true, ViaRoot: true}
		case "shared-publication":
			n.Published = &connect.Publication{Exists: true, ViaRoot: true, Tables: append([]connect.Table{{Schema: "public", Name: "orders"}}, n.Tables...)}
		case "lacking-publication":
			n.Published = &connect.Publication{Exists: true, ViaRoot: true, Tables: []connect.Table{{Schema: "public", Name: "orders"}, n.Tables[1]}}
		case "assumed":
			n.Database.Assumed = true
		case "reference":
			n.Database.Password = "${file:/opt/secrets:db}"
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	return n
}

// tell runs the stories of a golden file: prose, the words of the need and what
// the story gives it, and what comes of it.
func tell(t *testing.T, path string, outcome func(n *connect.Need, input []string) string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, story := range strings.Split(string(text), "====\n") {
		input, want, _ := strings.Cut(story, "----\n")
		var words, lines []string
		for line := range strings.Lines(input) {
			line = strings.TrimSuffix(line, "\n")
			switch rest, isNeed := strings.CutPrefix(line, "need "); {
			case strings.HasPrefix(line, "#"):
			case isNeed:
				words = strings.Fields(rest)
			default:
				lines = append(lines, line)
			}
		}
		got := outcome(with(t, words), lines)
		if diff := cmp.Diff(want, got); diff != "" && !*rewrite {
			t.Errorf("%s(-want +got):\n%s", input, diff)
		}
		written = append(written, input+"----\n"+got)
	}
	if *rewrite {
		if err := os.WriteFile(path, []byte(strings.Join(written, "====\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSettings(t *testing.T) {
	tell(t, "testdata/settings.txt", func(n *connect.Need, _ []string) string {
		var b strings.Builder
		for _, s := range n.Settings() {
			fmt.Fprintf(&b, "%s=%s\n    %s\n", s.Key, s.Shown(), s.Why)
		}
		if err := n.Complete(); err != nil {
			fmt.Fprintf(&b, "incomplete: %v\n", err)
		}
		return b.String()
	})
}

// A line of a story is a key of a connector that is otherwise just ours; with
// "only" before, there is nothing else. A line that ends in = takes a key away.
func TestDifferences(t *testing.T) {
	tell(t, "testdata/differences.txt", func(n *connect.Need, lines []string) string {
		have := n.Config()
		for _, line := range lines {
			if line == "only" {
				have = map[string]string{}
				continue
			}
			key, value, _ := strings.Cut(line, "=")
			if have[key] = value; value == "" {
				delete(have, key)
			}
		}
		var b strings.Builder
		differences := n.Differences(have)
		for _, d := range differences {
			severity := "advice"
			if d.Wrong {
				severity = "error"
			}
			fmt.Fprintf(&b, "%s: %s\n", severity, d)
			if d.Mendable() {
				fmt.Fprintf(&b, "    %s=%s\n", d.Key, d.Want)
			}
			if d.Moves {
				fmt.Fprintf(&b, "    moves\n")
			}
			if d.Kept {
				fmt.Fprintf(&b, "    kept\n")
			}
			if d.Then != "" {
				fmt.Fprintf(&b, "  %s\n", d.Then)
			}
		}
		// Whatever a value can mend is mended at once, and nothing else is touched.
		mended := connect.Mended(have, differences)
		for _, d := range n.Differences(mended) {
			if d.Mendable() {
				fmt.Fprintf(&b, "STILL %s\n", d)
			}
		}
		for key, value := range have {
			if _, ours := n.Config()[key]; !ours && mended[key] != value {
				fmt.Fprintf(&b, "TOUCHED %s\n", key)
			}
		}
		return b.String()
	})
}

// Applied twice, the second time there is nothing to do.
func TestOurOwnConnectorHasNoDifferences(t *testing.T) {
	for _, words := range []string{"json", "confluent login", "apicurio login tls", "reference"} {
		n := with(t, strings.Fields(words))
		if got := n.Differences(n.Config()); len(got) > 0 {
			t.Errorf("%s: %v", words, got)
		}
	}
}

// The converter is the one that the workers have; the registry's URL decides
// only where that does not.
func TestConverterIsTheOneThatIsThere(t *testing.T) {
	confluent, apicurio := connect.Plugin{Class: connect.ConfluentAvro}, connect.Plugin{Class: connect.ApicurioAvro}
	for _, tt := range []struct {
		plugins []connect.Plugin
		url     string
		want    string
	}{
		{[]connect.Plugin{apicurio}, "http://r:8081", connect.ApicurioAvro},
		{[]connect.Plugin{confluent}, "http://r/apis/ccompat/v7", connect.ConfluentAvro},
		{[]connect.Plugin{confluent, apicurio}, "http://r/apis/ccompat/v7", connect.ApicurioAvro},
		{[]connect.Plugin{confluent, apicurio}, "http://r:8081", connect.ConfluentAvro},
		{nil, "http://r/apis/ccompat/v7", connect.ApicurioAvro},
		{nil, "http://r:8081", connect.ConfluentAvro},
	} {
		if got := connect.Converter(tt.plugins, tt.url); got != tt.want {
			t.Errorf("%v, %s: got %s, want %s", tt.plugins, tt.url, got, tt.want)
		}
	}
}

// What is in order in a topic is what has the same record's key.
func TestRecordKey(t *testing.T) {
	for _, tt := range []struct {
		have    string
		columns string
		setting string
	}{
		{"", "", ""},
		{"message.key.columns=public.orders:id", "", ""},
		{"message.key.columns=public.orders:id; (.*).PRODUCTS:shop,sku ", "shop,sku", "message.key.columns"},
		{"message.key.columns=public.products:shop;public.pro.*:sku", "shop,sku", "message.key.columns"},
		{"message.key.columns=(?!audit).*:id", "", "message.key.columns"},
		{"transforms=key\ntransforms.key.type=org.apache.kafka.connect.transforms.ValueToKey", "", "transforms.key.type"},
	} {
		have := map[string]string{}
		for _, line := range strings.Split(tt.have, "\n") {
			key, value, _ := strings.Cut(line, "=")
			have[key] = value
		}
		columns, setting := connect.RecordKey(have, connect.Table{Schema: "public", Name: "products"})
		if strings.Join(columns, ",") != tt.columns || setting != tt.setting {
			t.Errorf("%s: got %v by %q", tt.have, columns, setting)
		}
	}
}

// A password is never part of what is printed.
func TestSecretsAreNotShown(t *testing.T) {
	n := with(t, strings.Fields("confluent login tls"))
	other := need()
	other.Registry, other.Database.Password = n.Registry, "other"
	for _, s := range n.Settings() {
		if strings.Contains(s.Shown(), "hunter2") {
			t.Errorf("%s shows %s", s.Key, s.Shown())
		}
	}
	if text := fmt.Sprintf("%+v", other.Differences(n.Config())); !strings.Contains(text, "***") || strings.Contains(strings.ReplaceAll(text, "value:", ""), "hunter2") {
		t.Errorf("differences show %s", text)
	}
}
