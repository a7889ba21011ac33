package connect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/connect"
)

// A worker is Kafka Connect as far as a test needs it: answers by request,
// recorded from Connect 4.3.1 with Debezium 3.6.3. Of several answers each is
// given once, and the last again and again.
type worker struct {
	t       *testing.T
	answers map[string][]answer
	asked   []string
	body    string
	login   string
}

type answer struct {
	status int
	body   string
}

func (w *worker) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	request := in.Method + " " + in.URL.RequestURI()
	w.asked = append(w.asked, request)
	body, _ := io.ReadAll(in.Body)
	w.body = string(body)
	user, password, _ := in.BasicAuth()
	w.login = user + ":" + password
	answers := w.answers[request]
	if len(answers) == 0 {
		w.t.Errorf("unexpected request: %s", request)
		http.NotFound(out, in)
		return
	}
	if len(answers) > 1 {
		w.answers[request] = answers[1:]
	}
	out.WriteHeader(answers[0].status)
	io.WriteString(out, answers[0].body)
}

func client(t *testing.T, path string, options connect.Options, answers map[string][]answer) (*connect.Client, *worker) {
	t.Helper()
	w := &worker{t: t, answers: answers}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	if options.RebalanceMax == 0 {
		options.RebalanceMax = time.Second
	}
	c, err := connect.NewClient(strings.Replace(server.URL, "http://", "http://app:hunter2@", 1)+path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, w
}

const runningStatus = `{"name":"unstale","connector":{"state":"RUNNING","worker_id":"127.0.0.1:8083","version":"3.6.3.Final"},"tasks":[{"id":0,"state":"RUNNING","worker_id":"127.0.0.1:8083","version":"3.6.3.Final"}],"type":"source"}`

func TestRequests(t *testing.T) {
	c, w := client(t, "/connect", connect.Options{}, map[string][]answer{
		"GET /connect/connector-plugins?connectorsOnly=false": {{200, `[{"class":"io.debezium.connector.postgresql.PostgresConnector","type":"source","version":"3.6.3.Final"},{"class":"io.apicurio.registry.utils.converter.AvroConverter","type":"converter"}]`}},
		"GET /connect/connectors/shop%20cdc/config":           {{200, `{"tasks.max":"1"}`}},
		"PUT /connect/connectors/shop%20cdc/config":           {{201, `{"name":"shop cdc","config":{}}`}},
		"GET /connect/connectors/shop%20cdc/status":           {{200, runningStatus}},
		"GET /connect/connectors/shop%20cdc/offsets": {{200, `{"offsets":[{"partition":{"server":"cdc"},"offset":{"lsn_proc":22186216,"messageType":"COMMIT","lsn_commit":22186216,"lsn":18446744073709551615,"txId":728,"ts_usec":1795699103863537}},
			{"partition":{"server":"former"},"offset":{"snapshot":"INITIAL","last_snapshot_record":false,"lsn_commit":22186300,"lsn":22186300}}]}`}},
		"PUT /connect/connectors/shop%20cdc/pause":  {{202, ""}},
		"PUT /connect/connectors/shop%20cdc/resume": {{202, ""}},
		"GET /connect/connectors/shop%20cdc/topics": {{200, `{"shop cdc":{"topics":["cdc.public.products","__debezium-heartbeat.cdc"]}}`}},
		"DELETE /connect/connectors/shop%20cdc":     {{204, ""}},

		"POST /connect/connectors/shop%20cdc/restart?includeTasks=true&onlyFailed=true":  {{202, runningStatus}},
		"POST /connect/connectors/shop%20cdc/restart?includeTasks=true&onlyFailed=false": {{202, runningStatus}},
	})
	ctx, name := t.Context(), "shop cdc"
	check := func(got, want any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	plugins, err := c.Plugins(ctx)
	check(plugins, []connect.Plugin{{Class: connect.Class, Type: "source", Version: "3.6.3.Final"}, {Class: connect.ApicurioAvro, Type: "converter"}}, err)
	config, err := c.Config(ctx, name)
	check(config, map[string]string{"tasks.max": "1"}, err)
	err = c.PutConfig(ctx, name, map[string]string{"tasks.max": "2"})
	check(w.body, `{"tasks.max":"2"}`, err)
	check(w.login, "app:hunter2", nil)
	status, err := c.Status(ctx, name)
	check(status.Running() && !status.Failed(), true, err)
	offsets, err := c.Offsets(ctx, name)
	check(offsets, []connect.Offset{{Prefix: "cdc", LSN: 1<<64 - 1, Sent: 22186216}, {Prefix: "former", LSN: 22186300}}, err)
	topics, err := c.Topics(ctx, name)
	check(topics, []string{"cdc.public.products", "__debezium-heartbeat.cdc"}, err)
	for _, do := range []func(context.Context, string) error{c.Pause, c.Resume, c.Delete, c.Restart, c.RestartFailed} {
		check(nil, nil, do(ctx, name))
	}
	check(len(w.asked), len(w.answers), nil)
}

func TestOnlyConnectItselfKnowsThatAConnectorIsNotThere(t *testing.T) {
	c, _ := client(t, "", connect.Options{}, map[string][]answer{
		"GET /connectors/a/status": {{404, `{"error_code":404,"message":"No status found for connector a"}`}},
		"GET /connectors/b/status": {{404, `{"error_code":404,"message":"HTTP 404 Not Found"}`}},
		"GET /connectors/c/status": {{404, `<html>nginx</html>`}},
		"GET /connectors/d/status": {{200, `<html>a page</html>`}},
	})
	if _, err := c.Status(t.Context(), "a"); !errors.Is(err, connect.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"b", "c", "d"} {
		if _, err := c.Status(t.Context(), name); err == nil || errors.Is(err, connect.ErrNotFound) || !strings.Contains(err.Error(), "is this") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// While the workers share out their tasks, and while they start, they refuse
// what they do a moment later.
func TestRequestIsSentAgainWhileConnectRebalances(t *testing.T) {
	const rebalance = `{"error_code":409,"message":"Cannot complete request momentarily due to stale configuration (typically caused by a concurrent config change)"}`
	c, w := client(t, "", connect.Options{RebalanceMax: time.Minute}, map[string][]answer{
		"PUT /connectors/a/pause": {{409, rebalance}, {503, "starting"}, {500, `{"error_code":500,"message":"Request timed out. The worker is currently ensuring membership in the cluster"}`}, {202, ""}},
	})
	if err := c.Pause(t.Context(), "a"); err != nil || len(w.asked) != 4 {
		t.Errorf("%v after %v", err, w.asked)
	}
	c, w = client(t, "", connect.Options{RebalanceMax: 250 * time.Millisecond}, map[string][]answer{"PUT /connectors/a/pause": {{409, rebalance}}})
	if err := c.Pause(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "sharing out their tasks") || len(w.asked) < 2 {
		t.Errorf("%v after %v", err, w.asked)
	}
	// Whoever gives up need not wait for it.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Pause(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What Connect says of a configuration is passed on, in a line, without the
// values that it quotes.
func TestErrorsSayWhatToDoAndNoSecret(t *testing.T) {
	const put = "PUT /connectors/a/config"
	for _, tt := range []struct {
		answer answer
		want   string // of the path on
	}{
		{answer{400, `{"error_code":400,"message":"Connector configuration is invalid and contains the following 1 error(s):\nError while validating connector config: FATAL: password authentication failed for hunter3\nYou can also find the above list of errors at the endpoint ` + "`/connector-plugins/{connectorType}/config/validate`" + `"}`},
			"/connectors/a/config: 400 Bad Request: Connector configuration is invalid and contains the following 1 error(s): Error while validating connector config: FATAL: password authentication failed for ***"},
		{answer{400, `{"error_code":400,"message":"Invalid value http://app:hunter%204@registry: hunter 4 is no password, nor is hunter%204; see http://ops:hunter5@help/"}`},
			"/connectors/a/config: 400 Bad Request: Invalid value http://***@registry: *** is no password, nor is ***; see http://***@help/"},
		{answer{401, ""}, "/connectors/a/config: 401 Unauthorized\n  look at username and password of source.kafka.connect"},
	} {
		c, _ := client(t, "", connect.Options{}, map[string][]answer{put: {tt.answer}})
		err := c.PutConfig(t.Context(), "a", map[string]string{"database.password": "hunter3", "database.user": "app", "value.converter.schema.registry.url": "http://app:hunter%204@registry"})
		want := "PUT " + c.URL() + tt.want
		if err == nil || cmp.Diff(want, err.Error()) != "" || strings.Contains(err.Error(), "hunter") {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	gone, err := connect.NewClient("http://app:hunter2@127.0.0.1:1", connect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Plugins(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "is Kafka Connect running") {
		t.Errorf("got %v", err)
	}
	if _, err := connect.NewClient("http://app:hun%ter2@connect", connect.Options{}); err == nil || strings.Contains(err.Error(), "ter2") {
		t.Errorf("got %v", err)
	}
}

// Recorded traces, most of their frames cut.
func TestTraceInOneLine(t *testing.T) {
	const path = "testdata/traces.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, story := range strings.Split(string(text), "====\n") {
		input, want, _ := strings.Cut(story, "----\n")
		trace := input
		if strings.HasPrefix(input, "#") {
			_, trace, _ = strings.Cut(input, "\n")
		}
		got := connect.Part{State: connect.Failed, Trace: trace}.Reason() + "\n"
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

// Of several parts the task that has failed says why.
func TestReasonIsThatOfTheTaskThatFailed(t *testing.T) {
	s := connect.Status{Connector: connect.Part{State: connect.Running}, Tasks: []connect.Task{
		{Part: connect.Part{State: connect.Failed, Trace: "x.ConnectException: no answer from https://app:hunter2@registry/ids\n"}},
		{Part: connect.Part{State: connect.Running}},
	}}
	if got, want := s.Reason(), "no answer from https://***@registry/ids"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (connect.Status{Connector: connect.Part{State: connect.Running}}).Reason(); got != "" {
		t.Errorf("nothing has failed, and the reason is %q", got)
	}
}

// Between two tasks, and before the first, a connector that runs sends nothing.
func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		connector       string
		tasks           []string
		running, failed bool
	}{
		{"RUNNING", []string{"RUNNING"}, true, false},
		{"RUNNING", nil, false, false},
		{"RUNNING", []string{"FAILED"}, false, true},
		{"FAILED", nil, false, true},
		{"PAUSED", []string{"PAUSED"}, false, false},
		{"STOPPED", nil, false, false},
		{"RUNNING", []string{"RESTARTING"}, false, false},
	} {
		var s connect.Status
		text := fmt.Sprintf(`{"connector":{"state":%q},"tasks":[`, tt.connector)
		for i, state := range tt.tasks {
			text += fmt.Sprintf(`{"id":%d,"state":%q}`, i, state)
		}
		if err := json.Unmarshal([]byte(text+"]}"), &s); err != nil {
			t.Fatal(err)
		}
		if s.Running() != tt.running || s.Failed() != tt.failed {
			t.Errorf("%s: running %v, failed %v", text, s.Running(), s.Failed())
		}
	}
}
