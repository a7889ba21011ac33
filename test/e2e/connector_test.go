package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/stack"
)

// A connectorFixture has a connector that the configuration makes.
type connectorFixture struct {
	*topicFixture
	text string // the configuration
	path string // its file
}

func newConnectorFixture(t *testing.T, format format) *connectorFixture {
	return newConnectorFixtureOn(t, usePipeline(t), format)
}

func newConnectorFixtureOn(t *testing.T, p pipeline, format format) *connectorFixture {
	f := &connectorFixture{topicFixture: newTopicFixtureOn(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{}), p, format)}
	f.text = strings.Replace(f.config("  warm: {key: 'warm:{id}', table: products, on_change: warm}\n"), "    group:", fmt.Sprintf(
		"    connect: {url: %q, slot: %s, publication: %s}\n    group:", f.connect.URL(), f.slot, f.slot), 1)
	f.path, _ = writeConfig(t, f.text)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, _ = f.ask(ctx, http.MethodDelete, "/connectors/"+f.slot, nil) // it may be gone
	})
	f.exec("CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(10,2))")
	f.exec("INSERT INTO products SELECT i, 'product ' || i, i FROM generate_series(1, 20) i")
	return f
}

// says runs a command and wants its exit code and, in this order, what it says.
func (f *connectorFixture) says(command string, exit int, texts ...string) string {
	f.t.Helper()
	out, errs, code := unstaleCommand(f.t, append(strings.Fields(command), "--config", f.path)...)
	rest := out + errs
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			f.t.Fatalf("unstale %s does not say %q:\n%s%s", command, text, out, errs)
		}
		rest = after
	}
	if code != exit {
		f.t.Fatalf("unstale %s: exit %d, want %d:\n%s%s", command, code, exit, out, errs)
	}
	return out
}

func (f *connectorFixture) position() (position string) {
	f.t.Helper()
	var status struct{ Position string }
	if err := json.Unmarshal([]byte(f.says("connector status --json", 0)), &status); err != nil {
		f.t.Fatal(err)
	}
	return status.Position
}

// reset is what somebody else does with a tool of his own.
func (f *connectorFixture) reset(changes map[string]string) {
	f.t.Helper()
	var have map[string]string
	f.rest(http.MethodGet, "/connectors/"+f.slot+"/config", nil, &have)
	for key, value := range changes {
		have[key] = value
	}
	f.rest(http.MethodPut, "/connectors/"+f.slot+"/config", have, nil)
}

func (f *connectorFixture) slotIsRead() (active bool) {
	f.t.Helper()
	err := f.conn.QueryRow(within(f.t, 10*time.Second), `SELECT active FROM pg_replication_slots WHERE slot_name = $1`, f.slot).Scan(&active)
	if err != nil {
		f.t.Fatal(err)
	}
	return active
}

// From nothing to values in Redis with the configuration alone, and back again.
func TestConnectorIsMadeOfTheConfiguration(t *testing.T) {
	t.Parallel()
	f := newConnectorFixture(t, avro)
	f.says("check", 1, "connector "+f.slot+": it does not exist", "unstale connector apply")
	f.says("connector apply --dry-run", 0, "would be created")
	f.says("connector status", 1, "there is no connector")
	f.says("connector apply", 0, "created", "RUNNING", "RUNNING")
	f.says("connector apply", 0, "nothing to change", "RUNNING")
	if out, _, _ := unstaleCommand(t, "check", "--config", f.path); strings.Contains(out, "connector "+f.slot+":") {
		t.Errorf("check has something to say of a connector that is as it should be:\n%s", out)
	}

	i := startInstance(t, f.text)
	i.waitReady()
	i.eventually("what the snapshot has read is warm", func() bool { return len(f.different("warm")) == 0 })
	f.exec("UPDATE products SET price = 77.70 WHERE id = 7")
	i.eventually("a change is set", func() bool { return f.value("warm:7") == `{"id":7,"name":"product 7","price":77.70}` })

	// The position moves while the tables are quiet, as far as the log goes.
	var written string
	if err := f.conn.QueryRow(within(t, 10*time.Second), `SELECT pg_current_wal_flush_lsn()::text`).Scan(&written); err != nil {
		t.Fatal(err)
	}
	i.eventually("the position passes what is written", func() bool {
		var passed bool
		position := f.position()
		return position != "" && f.conn.QueryRow(within(t, 10*time.Second), `SELECT $1::pg_lsn >= $2::pg_lsn`, position, written).Scan(&passed) == nil && passed
	})
	f.says("connector status", 0, "RUNNING", "task", "RUNNING", "position", "slot", f.slot, "bytes behind")

	f.says("connector pause", 0, "PAUSED", "PAUSED")
	f.says("check", 1, "it is paused", "unstale connector resume")
	f.exec("UPDATE products SET price = 8.80 WHERE id = 8")
	f.says("connector resume", 0, "RUNNING", "RUNNING")
	i.eventually("a change of the pause is set", func() bool { return f.value("warm:8") == `{"id":8,"name":"product 8","price":8.80}` })
	f.says("connector restart", 0, "nothing has failed")
	f.says("connector restart --all", 0, "RUNNING", "RUNNING")
	i.stop()

	left := f.says("connector delete", 0, "deleted", "slot "+f.slot, "publication "+f.slot, "position", f.slot+".public.products")
	f.says("connector status", 1, "there is no connector")
	statements := regexp.MustCompile(`(?m)^ +((?:SELECT|DROP) .*;)$`).FindAllStringSubmatch(left, -1)
	if len(statements) != 2 {
		t.Fatalf("it does not say how to remove what it leaves:\n%s", left)
	}
	f.eventually("nobody reads the slot", func() bool { return !f.slotIsRead() })
	for _, s := range statements {
		f.exec(s[1])
	}
}

// A connector that somebody has changed, and that has then lost its slot: check
// says what that costs, status why it has failed, apply brings it back, and what
// nobody has sent meanwhile is not in the cache.
func TestConnectorThatSomebodyHasChangedIsMended(t *testing.T) {
	t.Parallel()
	f := newConnectorFixture(t, jsonWithSchemas)
	f.says("connector apply", 0, "created", "RUNNING")
	i := startInstance(t, f.text)
	i.waitReady()
	i.eventually("what the snapshot has read is warm", func() bool { return len(f.different("warm")) == 0 })

	f.reset(map[string]string{"skipped.operations": "t", "snapshot.mode": "initial", "decimal.handling.mode": "double", "producer.override.linger.ms": "5"})
	f.says("check", 1,
		"advice: connector "+f.slot+": snapshot.mode is initial", "snapshot.mode=when_needed",
		"error: connector "+f.slot+": skipped.operations is t: TRUNCATE is never sent",
		"advice: connector "+f.slot+": decimal.handling.mode is double")

	f.rest(http.MethodPut, "/connectors/"+f.slot+"/stop", nil, nil)
	f.eventually("it has stopped", func() bool {
		var status struct {
			Connector struct{ State string }
			Tasks     []any
		}
		f.rest(http.MethodGet, "/connectors/"+f.slot+"/status", nil, &status)
		return status.Connector.State == "STOPPED" && len(status.Tasks) == 0 && !f.slotIsRead()
	})
	f.exec("SELECT pg_drop_replication_slot('" + f.slot + "')")
	f.exec("UPDATE products SET price = 5.50 WHERE id = 5")
	f.exec("DELETE FROM products WHERE id = 6")

	const why = "but this is no longer available on the server"
	f.says("connector resume", 1, "FAILED", why, "unstale connector restart")
	status := f.says("connector status", 1, "RUNNING", "FAILED", why, "slot", f.slot)
	if line := strings.Count(status, "\n"); line > 6 || strings.Contains(status, "\tat ") {
		t.Errorf("the trace is more than a line:\n%s", status)
	}
	f.says("check", 1, "it has failed", why)
	f.says("connector restart", 1, "FAILED", why)
	f.says("connector apply", 0, "snapshot.mode=when_needed", "skipped.operations=none", "decimal.handling.mode=string", "RUNNING", "RUNNING")
	var have map[string]string
	f.rest(http.MethodGet, "/connectors/"+f.slot+"/config", nil, &have)
	if have["producer.override.linger.ms"] != "5" {
		t.Errorf("what is somebody else's is gone: %v", have)
	}
	i.eventually("what was never sent is not in the cache", func() bool { return len(f.different("warm")) == 0 })
	i.stop()
}

// A publication that is there already may send a partitioned table under the names
// of its partitions, which the connector's list of tables leaves out. The setting of
// the connector changes nothing of that.
func TestAPublicationThatTearsATableIsSaid(t *testing.T) {
	t.Parallel()
	f := newConnectorFixture(t, jsonWithSchemas)
	f.exec("CREATE TABLE orders (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
	f.exec("CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (100)")
	f.exec("CREATE PUBLICATION " + f.slot + " FOR TABLE orders")
	text := strings.Replace(f.text, "table: products", "table: orders", 1)
	f.path, _ = writeConfig(t, text)
	alone := regexp.MustCompile(`(?m)^    connect: .*\n`).ReplaceAllString(text, "")
	unnamed, _ := writeConfig(t, alone)

	const torn = "the changes of public.orders come under the names of their partitions, and the connector's lists leave out public.orders_1"
	f.says("connector apply", 1, "created", "left: publication.name is "+f.slot, torn, "SET (publish_via_partition_root = true);", "RUNNING")
	f.says("check", 1, "error: publication "+f.slot+": it publishes the changes of", "publish_via_partition_root = true")
	if out, _, _ := unstaleCommand(t, "check", "--config", unnamed); !strings.Contains(out, "advice: publication "+f.slot+": it publishes the changes of public.orders under the names of its partitions") {
		t.Errorf("check does not say it where nobody has named the connector:\n%s", out)
	}

	f.exec("ALTER PUBLICATION " + f.slot + " SET (publish_via_partition_root = true)")
	f.says("connector apply", 0, "nothing to change", "RUNNING")
	f.reset(map[string]string{"publish.via.partition.root": "false"})
	f.says("check", 0, "advice: connector "+f.slot+": publish.via.partition.root is false", "makes anew", "publish.via.partition.root=true")
	for _, path := range []string{f.path, unnamed} {
		if out, _, _ := unstaleCommand(t, "check", "--config", path); strings.Contains(out, "names of its partitions") {
			t.Errorf("check says it all the same:\n%s", out)
		}
	}
}

// What a database or a role sets for its sessions changes what Debezium sends, and
// no record shows it: check does, and what it prints mends it.
func TestSettingsOfTheConnectorsSessionsAreFound(t *testing.T) {
	t.Parallel()
	f := newConnectorFixture(t, jsonWithSchemas)
	f.exec("ALTER TABLE products ADD raw bytea, ADD ratio float8, ADD span interval, ADD day date, ADD at timestamptz")
	in := "IN DATABASE " + f.slot
	f.exec("ALTER DATABASE " + f.slot + " SET bytea_output = escape")
	f.exec("ALTER ROLE CURRENT_USER " + in + " SET extra_float_digits = 0")
	f.exec("ALTER ROLE CURRENT_USER " + in + " SET IntervalStyle = sql_standard")
	// Those that the connector's driver sets itself.
	f.exec("ALTER ROLE CURRENT_USER " + in + " SET DateStyle = 'German, DMY'")
	f.exec("ALTER ROLE CURRENT_USER " + in + " SET TimeZone = 'Asia/Tokyo'")
	f.says("connector apply", 0, "created", "RUNNING")
	topic := f.slot + ".public.products"
	client, err := kgo.NewClient(kgo.SeedBrokers(f.kafka.Brokers()), kgo.ConsumeTopics(topic), kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(50*time.Millisecond))
	check(t, err)
	t.Cleanup(client.Close)
	sent := func(id int) (row struct {
		ID    int
		Raw   string
		Ratio float64
		Span  string
		Day   int
		At    string
	}) {
		insert := func() {
			f.exec(`INSERT INTO products VALUES ($1, 'a', 1, '\x00ff6162', 0.1::float8 + 0.2::float8, '1 year 2 days 03:00:00', '2024-02-03', '2024-02-03 04:05:06+00')`, id)
		}
		insert()
		for ctx := within(t, time.Minute); ; {
			for _, record := range client.PollFetches(ctx).Records() {
				var message struct {
					Payload struct {
						Op    string
						After json.RawMessage
					}
				}
				if record.Value == nil {
					continue // a tombstone
				}
				check(t, json.Unmarshal(record.Value, &message))
				if message.Payload.Op == "d" {
					continue
				}
				switch check(t, json.Unmarshal(message.Payload.After, &row)); {
				case row.ID != id:
				case message.Payload.Op == "r": // it came in time for the initial snapshot, whose session is another
					f.exec("DELETE FROM products WHERE id = $1", id)
					insert()
				default:
					return row
				}
			}
			check(t, ctx.Err())
		}
	}
	want := sent(100)
	if want.Raw == "AP9hYg==" || want.Ratio != 0.3 || want.Span != "P0Y0M0DT3H0M0S" || want.Day != 19756 || want.At != "2024-02-03T04:05:06.000000Z" {
		t.Errorf("it sends %+v, which is not what the settings are known to do", want)
	}

	said := f.says("check", 1,
		"bytea_output = escape: connector "+f.slot+" sends other bytes than public.products.raw has",
		"extra_float_digits = 0: connector "+f.slot+" sends rounded numbers in place of public.products.ratio",
		"intervalstyle = sql_standard: connector "+f.slot+" sends public.products.span without")
	statements := regexp.MustCompile(`(?m)^ +(ALTER ROLE .*;)$`).FindAllStringSubmatch(said, -1)
	if len(statements) != 3 {
		t.Fatalf("check has %d statements:\n%s", len(statements), said)
	}
	f.says("run", 1, "bytea_output = escape", statements[0][1])
	for _, s := range statements {
		f.exec(s[1])
	}
	f.says("connector restart --all", 0, "RUNNING", "RUNNING")
	want.ID, want.Raw, want.Ratio, want.Span = 101, "AP9hYg==", 0.30000000000000004, "P1Y0M2DT3H0M0S"
	if got := sent(101); got != want {
		t.Errorf("it sends %+v, want %+v", got, want)
	}
	if out, _, _ := unstaleCommand(t, "check", "--config", f.path); strings.Contains(out, "its sessions have") || strings.Contains(out, "dead letters") {
		t.Errorf("check still has something to say:\n%s", out)
	}
}

// A pipeline that is down brings nothing, and so do tables that rest: only the
// slot tells them apart. How far the cache is behind is to be seen, and to be said.
func TestAPipelineThatIsDownIsSeen(t *testing.T) {
	t.Parallel()
	own := usePipeline(t)
	var err error
	own.connect, err = servers.Connect(within(t, 3*time.Minute), stack.ConnectOptions{Kafka: own.kafka, Registry: own.registry})
	check(t, err)
	check(t, own.watch())
	f := newConnectorFixtureOn(t, own, jsonWithSchemas)
	f.says("connector apply", 0, "created", "RUNNING")
	i := startInstance(t, f.text)
	i.waitReady()
	i.eventually("what the snapshot has read is warm", func() bool { return len(f.different("warm")) == 0 })
	works := func(s *admin.Status) bool {
		return s.Ready && s.Pipeline != nil && s.Pipeline.State == "RUNNING" && s.Pipeline.Read && s.Pipeline.Stalled() == "" && s.LagSeconds < 2
	}
	i.waitStatus("nothing is behind", works)
	if out, _, code := unstaleCommand(t, "status", "--config", f.path, "--address", i.address); code != 0 ||
		!regexp.MustCompile(`(?m)^stream +`+f.slot+`\.public\.products/\d$(?s:.*)^lag +0 records, \d\.\d s\nconnector +`+f.slot+`, RUNNING\nslot +`+f.slot+`, read, \d+ bytes, \d\.\d s behind$`).MatchString(out) {
		t.Errorf("status exits %d and says\n%s", code, out)
	}

	check(t, own.connect.Kill())
	f.exec("UPDATE products SET price = price + 1")
	s := i.waitStatus("it is behind", func(s *admin.Status) bool {
		return s.LagBytes > 0 && s.LagSeconds > 3 && s.Pipeline.State == "unreachable"
	})
	if !s.Ready || s.LagRecords != 0 || s.Pipeline.Stalled() != "slot "+f.slot+": nobody reads it" {
		t.Errorf("it shows %+v and %+v", s, s.Pipeline)
	}
	if got := i.metric("unstale_pipeline_stalled"); got != 1 || i.metric("unstale_lag_bytes") == 0 || i.metric("unstale_lag_seconds") < 3 {
		t.Errorf("metrics: stalled %v, lag %v bytes, %v s", got, i.metric("unstale_lag_bytes"), i.metric("unstale_lag_seconds"))
	}
	if out, _, code := unstaleCommand(t, "status", "--config", f.path, "--address", i.address); code != 0 || !strings.Contains(out, "streaming, ready, but no change comes") {
		t.Errorf("status exits %d and says\n%s", code, out)
	}
	i.eventually("it is said", func() bool { return i.said("nobody reads the connector's slot") == 1 })
	check(t, own.connect.Start(within(t, time.Minute)))
	i.waitStatus("nothing is behind again", works)
	i.eventually("what was changed meanwhile is set or dropped", func() bool { return len(f.different("warm")) == 0 })

	f.says("connector pause", 0, "PAUSED")
	f.exec("UPDATE products SET price = price + 1")
	i.waitStatus("it is behind while it is paused", func(s *admin.Status) bool {
		return s.LagBytes > 0 && s.LagSeconds > 2 && s.Pipeline.Stalled() == "connector "+f.slot+" is PAUSED"
	})
	f.says("connector resume", 0, "RUNNING")
	i.waitStatus("nothing is behind again", works)
	i.stop()
}

// A publication FOR ALL TABLES is left as it is, and a connector whose publication or
// slot is gone is said: each of it ends in a task that fails.
func TestAConnectorFitsWhatIsThere(t *testing.T) {
	t.Parallel()
	f := newConnectorFixture(t, jsonWithSchemas)
	f.exec("CREATE PUBLICATION " + f.slot + " FOR ALL TABLES")
	f.says("connector apply", 0, "created", "RUNNING", "RUNNING")
	var have map[string]string
	f.rest(http.MethodGet, "/connectors/"+f.slot+"/config", nil, &have)
	if have["publication.autocreate.mode"] != "disabled" {
		t.Errorf("it alters the publication: %v", have["publication.autocreate.mode"])
	}
	i := startInstance(t, f.text)
	i.waitReady()
	i.eventually("what the snapshot has read is warm", func() bool { return len(f.different("warm")) == 0 })
	i.stop()
	f.says("connector apply", 0, "nothing to change")
	f.says("connector pause", 0, "PAUSED")
	f.says("connector status", 1, "PAUSED", "unstale connector resume")
	f.says("connector resume", 0, "RUNNING")

	f.reset(map[string]string{"publication.autocreate.mode": "filtered"})
	f.says("check", 1, "publication.autocreate.mode is filtered: publication "+f.slot+" is FOR ALL TABLES", "publication.autocreate.mode=disabled")
	f.says("connector apply", 0, "publication.autocreate.mode=disabled", "RUNNING")

	// Another connector with that prefix would write every change twice.
	second := *f
	second.path, _ = writeConfig(t, strings.Replace(f.text, "connect: {url", "connect: {connector: another, url", 1))
	second.says("connector apply", 1, "connector "+f.slot, "the prefix "+f.slot+" already")

	f.exec("DROP PUBLICATION " + f.slot)
	f.says("check", 1, "there is no publication "+f.slot+", and the connector does not make it")
	f.rest(http.MethodPut, "/connectors/"+f.slot+"/stop", nil, nil)
	f.eventually("nobody reads the slot", func() bool { return !f.slotIsRead() })
	f.exec("SELECT pg_drop_replication_slot('" + f.slot + "')")
	f.says("check", 1, "it is stopped", "slot "+f.slot+": it does not exist any more")
	f.says("connector status", 1, "STOPPED", "it does not exist any more")
}
