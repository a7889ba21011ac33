package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// A fakeConnect is Kafka Connect with at most one connector.
type fakeConnect struct {
	mu      sync.Mutex
	plugins []string
	config  map[string]string // nil: there is no connector
	others  map[string]string // topic.prefix of other connectors, by name
	// state of the connector and its tasks; trace of those that have FAILED, and
	// with a start those are what next says.
	state, next string
	trace       string
	asked       []string // what changes something
}

func (f *fakeConnect) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method != http.MethodGet {
		f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	}
	path := strings.TrimPrefix(r.URL.Path, "/connectors/shop")
	answer := func(status int, body any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	switch {
	case r.URL.Path == "/connector-plugins":
		var plugins []map[string]string
		for _, p := range f.plugins {
			class, version, _ := strings.Cut(p, "@")
			plugins = append(plugins, map[string]string{"class": class, "type": "x", "version": version})
		}
		answer(200, plugins)
	case r.URL.Path == "/connectors":
		all := map[string]any{}
		for name, prefix := range f.others {
			all[name] = map[string]any{"info": map[string]any{"config": map[string]string{"topic.prefix": prefix, "connector.class": "io.debezium.connector.postgresql.PostgresConnector"}}}
		}
		answer(200, all)
	case r.Method == http.MethodPut && path == "/config":
		if f.config == nil {
			f.state = "RUNNING RUNNING"
		}
		f.config = nil
		_ = json.NewDecoder(r.Body).Decode(&f.config)
		answer(200, map[string]any{"name": "shop", "config": f.config})
	case f.config == nil:
		answer(404, map[string]any{"error_code": 404, "message": "Connector shop not found"})
	case path == "/config":
		answer(200, f.config)
	case path == "/status":
		words := strings.Fields(f.state)
		tasks := []map[string]any{}
		for i, state := range words[1:] {
			task := map[string]any{"id": i, "state": state, "worker_id": "10.0.0.7:8083"}
			if state == "FAILED" {
				task["trace"] = f.trace
			}
			tasks = append(tasks, task)
		}
		answer(200, map[string]any{"name": "shop", "connector": map[string]any{"state": words[0], "worker_id": "10.0.0.7:8083"}, "tasks": tasks})
	case path == "/offsets":
		offset := func(prefix string, lsn uint64) any {
			return map[string]any{"partition": map[string]any{"server": prefix}, "offset": map[string]any{"lsn": lsn}}
		}
		// It had another topic.prefix before.
		answer(200, map[string]any{"offsets": []any{offset("shop", 0x10), offset("cdc", 4294967296+0x1528A50)}})
	case path == "/topics":
		answer(200, map[string]any{"shop": map[string]any{"topics": []string{"cdc.public.products", "__debezium-heartbeat.cdc"}}})
	case path == "/restart":
		f.state = f.next
		answer(202, nil)
	case path == "/pause":
		f.state = "PAUSED PAUSED"
		answer(202, nil)
	case path == "/resume":
		f.state = "RUNNING RUNNING"
		answer(202, nil)
	case r.Method == http.MethodDelete && path == "":
		f.config = nil
		w.WriteHeader(204)
	default:
		answer(404, map[string]any{"error_code": 404, "message": "HTTP 404 Not Found"})
	}
}

const connectorConfig = `redis: redis://127.0.0.1:1
source:
  kafka:
    brokers: ["127.0.0.1:1"]
    group: shop
    topic_prefix: cdc
    connect: {url: CONNECT, database: 'postgres://debezium:hunter2@db/shop?sslmode=require'}
entries:
  product: {key: "product:{id}", table: products}
`

// Each story of the file is a Connect, one command, and what it says. A line
// "have" makes a connector of ours, and then key=value changes it; "other" names
// another one and its prefix; "without" takes a line of the configuration out and
// "with" puts one in, "top" and "entry" at the top and among the entries.
func TestConnectorStories(t *testing.T) {
	const path = "testdata/connector.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stories := strings.Split(string(text), "====\n")
	written := make([]string, len(stories))
	t.Run("stories", func(t *testing.T) {
		for i, story := range stories {
			input, want, _ := strings.Cut(story, "----\n")
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel() // they wait for a connector to settle
				got := tellConnector(t, input)
				if diff := cmp.Diff(want, got); diff != "" && !*rewrite {
					t.Errorf("%s(-want +got):\n%s", input, diff)
				}
				written[i] = input + "----\n" + got
			})
		}
	})
	if *rewrite {
		if err := os.WriteFile(path, []byte(strings.Join(written, "====\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var aboutConnect = regexp.MustCompile(`^\w+: (connector|kafka connect)`)

func tellConnector(t *testing.T, input string) string {
	f := &fakeConnect{plugins: []string{"io.debezium.connector.postgresql.PostgresConnector@3.6.3.Final"}}
	server := httptest.NewServer(f)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "unstale.yaml")
	config := connectorConfig
	var command []string
	run := func(args ...string) (code int, stdout, stderr string) {
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "CONNECT", server.URL)), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code = execute(append(args, "--config", file), strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	for line := range strings.Lines(input) {
		line = strings.TrimSuffix(line, "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(line, "#"):
		case word == "$":
			command = strings.Fields(rest)[1:]
		case word == "without":
			var kept []string
			for l := range strings.Lines(config) {
				if !strings.Contains(l, rest) {
					kept = append(kept, l)
				}
			}
			config = strings.Join(kept, "")
		case word == "with":
			config = strings.Replace(config, "entries:\n", "    "+rest+"\nentries:\n", 1)
		case word == "top":
			config = rest + "\n" + config
		case word == "entry":
			config += "  " + rest + "\n"
		case word == "plugins":
			f.plugins = strings.Fields(rest)
		case word == "have":
			_, shown, _ := run("connector", "show", "--json", "--reveal")
			if err := json.Unmarshal([]byte(shown), &f.config); err != nil {
				t.Fatalf("%v in %s", err, shown)
			}
			f.state, f.next = "RUNNING RUNNING", "RUNNING RUNNING"
		case word == "other":
			name, prefix, _ := strings.Cut(rest, " ")
			f.others = map[string]string{name: prefix}
		case word == "state":
			f.state = rest
		case word == "next":
			f.next = rest
		case word == "trace":
			f.trace = strings.ReplaceAll(rest, `\n`, "\n")
		default:
			key, value, _ := strings.Cut(line, "=")
			if f.config[key] = value; value == "" {
				delete(f.config, key)
			}
		}
	}
	before := maps.Clone(f.config)
	code, stdout, stderr := run(command...)
	var b strings.Builder
	if command[0] == "check" {
		// What it says of the other servers, which are away, is not told here.
		for finding := range strings.SplitSeq(strings.TrimSpace(stdout), "\n\n") {
			if aboutConnect.MatchString(finding) {
				fmt.Fprintf(&b, "%s\n\n", finding)
			}
		}
	} else {
		io.WriteString(&b, stdout)
	}
	for line := range strings.Lines(stderr) {
		fmt.Fprintf(&b, "! %s", line)
	}
	for _, request := range f.asked {
		fmt.Fprintf(&b, "> %s\n", request)
	}
	if before != nil {
		for _, key := range slices.Sorted(maps.Keys(f.config)) {
			if before[key] != f.config[key] {
				fmt.Fprintf(&b, "> %s=%s\n", key, f.config[key])
			}
		}
	}
	fmt.Fprintf(&b, "exit %d\n", code)
	told := strings.NewReplacer(server.URL, "http://connect:8083", file, "unstale.yaml").Replace(b.String())
	if strings.Contains(stdout+stderr, "hunter2") && !slices.Contains(command, "--reveal") {
		t.Errorf("shows the password:\n%s", told)
	}
	return told
}
