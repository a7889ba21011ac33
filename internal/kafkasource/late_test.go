package kafkasource_test

import (
	"testing"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/kafkasource"
)

// An event whose turn is over may only drop, whatever it is.
func TestALateChangeSetsNothing(t *testing.T) {
	products := &change.Relation{Schema: "public", Name: "products"}
	of := debezium.Source{Schema: "public", Table: "products"}
	for _, c := range []struct {
		name  string
		event debezium.Event
		want  change.Op // 0: it concerns no entry
	}{
		{"an insert", debezium.Event{Kind: debezium.Row, Op: 'c', Relation: products, Source: of}, change.Insert},
		{"a row of a snapshot", debezium.Event{Kind: debezium.Row, Op: 'r', Relation: products, Source: of, Snapshot: debezium.Initial}, change.Insert},
		{"an update", debezium.Event{Kind: debezium.Row, Op: 'u', Relation: products, Source: of}, change.Update},
		{"a delete", debezium.Event{Kind: debezium.Row, Op: 'd', Relation: products, Source: of}, change.Delete},
		{"a truncate", debezium.Event{Kind: debezium.Truncate, Relation: products, Source: of}, change.Truncate},
		{"a tombstone", debezium.Event{Kind: debezium.Tombstone, Relation: products, Source: of}, change.Delete},
		{"a tombstone of nobody knows what", debezium.Event{Kind: debezium.Tombstone}, change.Undecodable},
		{"a tombstone of a table without entries", debezium.Event{Kind: debezium.Tombstone, Source: of}, 0},
		{"a row of a table without entries", debezium.Event{Kind: debezium.Row, Op: 'u', Source: of}, 0},
		{"a row of another database", debezium.Event{Kind: debezium.Row, Op: 'u', Relation: products, Source: debezium.Source{Database: "other", Schema: "public", Table: "products"}}, 0},
		{"a heartbeat", debezium.Event{}, 0},
	} {
		got, ok := kafkasource.Late(&c.event, "shop")
		if got.Op != c.want || ok != (c.want != 0) {
			t.Errorf("%s: got %s, %v; want %s", c.name, got.Op, ok, c.want)
		}
		if got.Relation != nil && !got.Again {
			t.Errorf("%s may be SET", c.name)
		}
	}
}
