package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
)

// What is set has to be in order, and in order is what has the record's key.
func TestCheckNamesEntriesThatAreKeyedOtherwiseThanTheRecords(t *testing.T) {
	c := &config.Config{Entries: []config.Entry{
		{Name: "row", Key: "product:{id}", OnChange: config.Update},
		{Name: "shop", Key: "product:{shop}:{id}", OnChange: config.Warm},
		{Name: "sku", Key: "sku:{sku}", OnChange: config.Warm},
		{Name: "dropped", Key: "dropped:{sku}", OnChange: config.Invalidate},
	}}
	names := make([]database.Name, len(c.Entries))
	tables := make([]database.Table, len(c.Entries))
	for i := range names {
		names[i] = database.Name{Schema: "public", Table: "products"}
		tables[i].OID, tables[i].Replica = 1, database.Replica{Setting: "d", PrimaryKey: []string{"id"}}
	}
	full := make([]database.Table, len(tables))
	for i := range full {
		full[i].OID, full[i].Replica = 1, database.Replica{Setting: "f", PrimaryKey: []string{"id"}}
	}
	keyless := make([]database.Table, len(tables))
	for i := range keyless {
		keyless[i].OID, keyless[i].Replica = 1, database.Replica{Setting: "f"}
	}
	byShop := map[string]string{"message.key.columns": "public.products:shop"}
	for _, tt := range []struct {
		name   string
		tables []database.Table
		have   map[string]string
		want   []string // beginnings
	}{
		{"the primary key", tables, nil, []string{"entry sku: the records of public.products are keyed by its primary key, and its key lacks id:"}},
		{"no primary key", keyless, nil, []string{"entry row: the records of public.products have no key", "entry shop: the records", "entry sku: the records"}},
		{"nobody knows the tables", nil, nil, nil},
		{"message.key.columns", full, byShop, []string{
			"entry row: the records of public.products are keyed by shop (message.key.columns of the connector), and its key lacks shop:",
			"entry sku: the records of public.products are keyed by shop"}},
		{"of a table that nobody knows", nil, byShop, []string{"entry row: the records", "entry sku: the records"}},
		{"which an old row lacks", tables, byShop, []string{
			"entry row: the records of public.products are keyed by shop (message.key.columns of the connector), which an old row does not show:",
			"entry shop: the records", "entry sku: the records"}},
		{"another table", tables, map[string]string{"message.key.columns": "public.orders:shop"}, []string{"entry sku: the records of public.products are keyed by its primary key"}},
		{"a transform", tables, map[string]string{"transforms": "key", "transforms.key.type": "org.apache.kafka.connect.transforms.ValueToKey"},
			[]string{"entry row: what the records of public.products are keyed by cannot be told (transforms.key.type", "entry shop: what", "entry sku: what"}},
	} {
		var found findings
		found.recordKeys(c, names, tt.tables, tt.have)
		var got []string
		for i, f := range found {
			text := f.Subject + ": " + f.Text
			if i < len(tt.want) && strings.HasPrefix(text, tt.want[i]) {
				text = tt.want[i]
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Nobody has named the connector's publication: each that tears a table of the
// entries into its partitions may be it.
func TestCheckAdvisesAgainstPublicationsThatTearTables(t *testing.T) {
	var found findings
	table := database.Table{Relation: database.Relation{Name: database.Name{Schema: "public", Table: "orders"}}}
	found.partitions(catalogView{tables: []database.Table{table, table, {}}, splits: [][]string{{"dbz_publication", "Ours"}, {"dbz_publication"}, nil}})
	var got []string
	for _, f := range found {
		got = append(got, string(f.Severity)+" "+f.Subject+": "+f.Mend[0])
	}
	want := []string{
		"advice publication dbz_publication: ALTER PUBLICATION dbz_publication SET (publish_via_partition_root = true);",
		`advice publication Ours: ALTER PUBLICATION "Ours" SET (publish_via_partition_root = true);`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An entry whose table comes by none of the topics is ready, and never dropped. The
// connector proves it; names alone are a reason to look.
func TestCheckNamesEntriesThatNoTopicBrings(t *testing.T) {
	names := []database.Name{{Schema: "public", Table: "products"}, {Schema: "shop", Table: "orders"}}
	plain := map[string]string{"topic.prefix": "cdc"}
	routed := map[string]string{"topic.prefix": "cdc", "transforms": "r", "transforms.r.type": "org.apache.kafka.connect.transforms.RegexRouter"}
	unwrapped := map[string]string{"topic.prefix": "cdc", "transforms": "h", "transforms.h.type": "org.apache.kafka.connect.transforms.InsertHeader$Value"}
	for _, tt := range []struct {
		name  string
		kafka config.Kafka
		have  map[string]string
		want  []string
	}{
		{"a slip of the pen", config.Kafka{Topics: []string{"cdc.public.productz", "cdc.shop.orders"}}, plain, []string{"error entry product"}},
		{"the same, and nobody knows the connector", config.Kafka{Topics: []string{"cdc.public.productz", "cdc.shop.orders"}}, nil, []string{"advice entry product"}},
		{"another table's", config.Kafka{Topics: []string{"cdc.shop.orders"}}, unwrapped, []string{"error entry product"}},
		{"another prefix", config.Kafka{TopicsPattern: `^other\.`}, plain, []string{"error entry product", "error entry order"}},
		{"a pattern that has them", config.Kafka{TopicsPattern: `^cdc\.`}, plain, nil},
		{"a pattern, and nobody knows the connector", config.Kafka{TopicsPattern: `^other\.`}, nil, nil},
		{"a router may call them anything", config.Kafka{Topics: []string{"a"}}, routed, nil},
		{"named by themselves", config.Kafka{Topics: []string{"Products", "all-orders"}}, nil, nil},
		{"by the prefix, which is judged elsewhere", config.Kafka{TopicPrefix: "other"}, plain, nil},
	} {
		c := &config.Config{Entries: []config.Entry{{Name: "product"}, {Name: "order"}}}
		c.Source.Kafka = tt.kafka
		var found findings
		found.unbrought(c, names, catalogView{}, tt.have)
		var got []string
		for _, f := range found {
			got = append(got, string(f.Severity)+" "+f.Subject)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	// The rows of partitions may come under their own names.
	c := &config.Config{Entries: []config.Entry{{Name: "product"}}}
	c.Source.Kafka.Topics = []string{"cdc.public.products_1"}
	view := catalogView{tables: []database.Table{{Below: []database.Relation{{Name: database.Name{Schema: "public", Table: "products_1"}}}}}}
	var found findings
	if found.unbrought(c, names[:1], view, plain); len(found) > 0 {
		t.Errorf("a partition's topic is taken for none: %+v", found)
	}
}
