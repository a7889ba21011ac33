//go:build record

package e2e

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recordedSteps are what is recorded: what it shows, the statements, and how many
// messages they bring.
var recordedSteps = []struct {
	prose      string
	statements []string
	messages   int
}{
	{"A row that the snapshot reads.", nil, 1},
	{"An insert.", []string{`INSERT INTO orders VALUES (2, 'b', 19.90, '2024-02-29 12:00:00.5+00', '2024-02-29 12:00:00.25', '0044-03-15 BC', '\x00ff', '{a,"b c"}', 'paid', '{"a": 1.50}', repeat('long ', 450), 6, 'bb=>1, c=>NULL', 0.1)`}, 1},
	{"An update that leaves a long value alone.", []string{`UPDATE orders SET price = 20 WHERE id = 2`}, 1},
	{"A key changes: the old one is deleted, and what the update left alone is nowhere.", []string{`UPDATE orders SET id = 3 WHERE id = 2`}, 3},
	{"A NULL in a column that has a default; numbers that are none, times without end.", []string{`INSERT INTO orders VALUES (4, NULL, 'NaN', 'infinity', '-infinity', 'infinity', NULL, '{}', NULL, NULL, NULL, NULL, '', 'NaN')`}, 1},
	{"", []string{`ALTER TABLE orders REPLICA IDENTITY FULL`}, 0},
	{"The same with the whole old row: what the update left alone is there.", []string{`UPDATE orders SET price = 21 WHERE id = 3`}, 1},
	{"A delete and its tombstone.", []string{`DELETE FROM orders WHERE id = 3`}, 2},
	{"A column more.", []string{`ALTER TABLE orders ADD extra int`, `INSERT INTO orders (id, extra) VALUES (5, 7)`}, 1},
	{"A TRUNCATE.", []string{`TRUNCATE orders`}, 1},
}

// The messages that the unit tests of internal/debezium read are those of a real
// Debezium: go test ./test/e2e -tags record -run TestDebeziumsMessagesAreRecorded
func TestDebeziumsMessagesAreRecorded(t *testing.T) {
	for _, format := range []format{avro, jsonWithSchemas, jsonPlain} {
		f := newTopicFixture(t, 15, format)
		f.exec(`CREATE EXTENSION hstore`)
		f.exec(`CREATE TYPE kind AS ENUM ('open', 'paid')`)
		f.exec(`CREATE TABLE orders (id int PRIMARY KEY, "weird-col" text, price numeric(10,2), at timestamptz, made timestamp(3), day date, raw bytea,
			tags text[], kind kind, doc jsonb, long text, n int DEFAULT 5, pairs hstore, ratio float8)`)
		f.exec(`ALTER TABLE orders ALTER long SET STORAGE EXTERNAL`)
		f.exec(`INSERT INTO orders VALUES (1, 'a', 1.50, '2024-02-29 12:00:00+00', '2024-02-29 12:00:00', '2024-02-29', '\x', '{}', 'open', '[]', 'short', 5, '', 1e23)`)
		f.told = map[string]string{"column.propagate.source.type": "none", "topic.creation.default.partitions": "1"}
		f.connectDebezium()
		client, err := kgo.NewClient(kgo.SeedBrokers(f.kafka.Brokers()), kgo.ConsumeTopics(f.slot+".public.orders"), kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(50*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var file strings.Builder
		known := map[string]bool{}
		var records []*kgo.Record
		for _, step := range recordedSteps {
			for _, statement := range step.statements {
				f.exec(statement)
			}
			if step.messages == 0 {
				file.WriteString("# From here on the table has REPLICA IDENTITY FULL.\nfull\n----\n\n")
				continue
			}
			for len(records) < step.messages {
				records = append(records, client.PollFetches(within(t, time.Minute)).Records()...)
			}
			var block strings.Builder
			for _, record := range records[:step.messages] {
				for _, b := range [][]byte{record.Key, record.Value} {
					if format == avro && b != nil && !known[string(b[:5])] {
						known[string(b[:5])] = true
						file.WriteString(recordedSchema(t, f.pipeline, b))
					}
				}
				fmt.Fprintf(&block, "key %s\nvalue %s\n", recorded(record.Key), recorded(record.Value))
			}
			records = records[step.messages:]
			fmt.Fprintf(&file, "# %s\n%s----\n\n", step.prose, block.String())
		}
		name := map[fmt.Stringer]string{avro: "avro", jsonWithSchemas: "json", jsonPlain: "plain"}[format]
		check(t, os.WriteFile(filepath.Join("..", "..", "internal", "debezium", "testdata", name+".txt"), []byte(file.String()), 0o644))
	}
}

// recorded is JSON as it is, Avro as hex digits.
func recorded(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case b[0] == 0:
		return hex.EncodeToString(b)
	}
	return string(b)
}

// recordedSchema is a block that registers the schema of a message.
func recordedSchema(t *testing.T, p pipeline, message []byte) string {
	id := uint32(message[1])<<24 | uint32(message[2])<<16 | uint32(message[3])<<8 | uint32(message[4])
	response, err := http.Get(fmt.Sprintf("%s/schemas/ids/%d", p.registry.CompatURL(), id))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Schema string }
	check(t, json.NewDecoder(response.Body).Decode(&answer))
	return fmt.Sprintf("schema %d %s\n----\n\n", id, answer.Schema)
}
