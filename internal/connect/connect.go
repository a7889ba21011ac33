// Package connect is Kafka Connect: the connector that a configuration needs,
// and the REST API that it is told through.
//
// Each key of the connector stands once, in the table of settings.go, with our
// value and the reason for it. What is posted, what is shown to people, and what
// is said of a connector that somebody else has made all read that table.
//
// It never prints a secret, keeps no state, and decides nothing by itself: it
// says what differs, and the caller does what it was asked to.
package connect

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// A Need is what a configuration asks of the connector.
type Need struct {
	Database    Database
	Slot        string
	Publication string
	TopicPrefix string // empty: not known
	Tables      []Table
	// Partitions has those of each table that is partitioned, as far as it is known.
	Partitions map[Table][]Table
	// Published is what the publication is like; nil: nobody knows.
	Published   *Publication
	Placeholder string
	Registry    *Registry // nil: records are JSON
}

// A Publication is what the catalog of the database says of one.
type Publication struct {
	Exists    bool
	AllTables bool // FOR ALL TABLES; else Tables are those that it has
	Tables    []Table
	// ViaRoot: the rows of partitions come as those of their table.
	ViaRoot bool
}

// Database is how the workers of Connect reach PostgreSQL. Host is empty where
// nobody has said how.
type Database struct {
	Host, User, Password, Name string
	Port                       uint16
	// Assumed: nobody has said that the workers log in like that, but only that we
	// do. A connector that is there keeps its own login.
	Assumed bool
	// TLS has sslmode, sslrootcert, sslcert, sslkey and sslpassword, as far as
	// they are given. Files are those of the workers.
	TLS map[string]string
}

// A Table of the database.
type Table struct{ Schema, Name string }

// pattern is a regular expression of Java that matches the table's name in
// table.include.list, where commas separate and may be escaped like anything
// else.
func (t Table) pattern() string {
	var b strings.Builder
	for _, r := range t.Schema + "." + t.Name {
		if r < 0x80 && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == ' ') {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Registry is where the converters keep the schemas of their Avro.
type Registry struct {
	URL                string // of the Confluent API, as the workers reach it
	Username, Password string
	// Converter is the class of the converter, ConfluentAvro or ApicurioAvro.
	Converter string
}

// The converters for Avro.
const (
	ConfluentAvro = "io.confluent.connect.avro.AvroConverter"
	ApicurioAvro  = "io.apicurio.registry.utils.converter.AvroConverter"
)

// JSON is the converter that Connect itself brings.
const JSON = "org.apache.kafka.connect.json.JsonConverter"

// Class of the connector.
const Class = "io.debezium.connector.postgresql.PostgresConnector"

var apicurioPath = regexp.MustCompile(`/apis/.*$`)

// Converter is the class of the converter for Avro that the workers have, of
// those plugins; if they have both or none, the one that goes with the
// registry's URL.
func Converter(plugins []Plugin, registryURL string) string {
	has := func(class string) bool {
		return slices.ContainsFunc(plugins, func(p Plugin) bool { return p.Class == class })
	}
	if confluent, apicurio := has(ConfluentAvro), has(ApicurioAvro); confluent != apicurio {
		if confluent {
			return ConfluentAvro
		}
		return ApicurioAvro
	}
	if apicurioPath.MatchString(registryURL) {
		return ApicurioAvro
	}
	return ConfluentAvro
}

// apicurioURL is the API that Apicurio's converter speaks, beside the Confluent
// one.
func (r *Registry) apicurioURL() string {
	return apicurioPath.ReplaceAllString(r.URL, "") + "/apis/registry/v2"
}

// A Setting is one key of a connector.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Why    string `json:"why"`
	Secret bool   `json:"-"`
}

// hidden stands for a secret.
const hidden = "***"

// Shown is the value, or stars where it is a secret.
func (s Setting) Shown() string { return shown(s.Value, s.Secret) }

func shown(value string, secret bool) string {
	// What Connect itself replaces, ${file:...}, is no secret.
	if secret && value != "" && !isReference(value) {
		return hidden
	}
	return withoutLogins(value)
}

// urlBegin is where a URL of a text or of a list begins.
var urlBegin = regexp.MustCompile(`(^|[\s,;"'(\[=<])[A-Za-z][A-Za-z0-9+.-]*://`)

// logins finds user and password of every URL in a text, the last first: what
// stands before the last @ of a word. People write passwords with what ought to
// be encoded in a URL, such as / or a comma.
func logins(text string) (found [][2]int) {
	begins := urlBegin.FindAllStringIndex(text, -1)
	for i := len(begins) - 1; i >= 0; i-- {
		from, end := begins[i][1], len(text)
		if i+1 < len(begins) {
			end = begins[i+1][0]
		}
		if space := strings.IndexFunc(text[from:end], unicode.IsSpace); space >= 0 {
			end = from + space
		}
		if at := strings.LastIndexByte(text[from:end], '@'); at >= 0 {
			found = append(found, [2]int{from, from + at})
		}
	}
	return found
}

func withoutLogins(text string) string {
	for _, at := range logins(text) {
		text = text[:at[0]] + hidden + text[at[1]:]
	}
	return text
}

// isReference reports whether Connect replaces the value, or a part of it, by
// what a provider of configuration has.
func isReference(value string) bool { return strings.Contains(value, "${") }

// Settings are the keys of the connector, in the order in which they are read
// best.
func (n *Need) Settings() []Setting {
	var settings []Setting
	for i := range rules {
		r := &rules[i]
		if value := r.value(n); value != "" {
			why := r.why
			if r.whyOf != nil {
				why = r.whyOf(value)
			}
			settings = append(settings, Setting{Key: r.key, Value: value, Why: why, Secret: r.secret})
		}
	}
	for _, key := range tlsKeys {
		if value := n.Database.TLS[key]; value != "" {
			settings = append(settings, Setting{Key: "database." + key, Value: value, Why: "as the URL of the database says", Secret: key == "sslpassword"})
		}
	}
	return settings
}

var tlsKeys = []string{"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"}

// Config is what is posted for a connector that does not exist.
func (n *Need) Config() map[string]string {
	config := map[string]string{}
	for _, s := range n.Settings() {
		config[s.Key] = s.Value
	}
	return config
}

// Complete returns an error that says what is missing for a connector to be made.
func (n *Need) Complete() error {
	switch {
	case n.Database.Host == "":
		return fmt.Errorf("nothing says how the connector reaches the database: write database: ${DATABASE_URL}, or source.kafka.connect.database where its workers reach it otherwise")
	case n.TopicPrefix == "":
		return fmt.Errorf("nothing says what the connector's topics begin with: write source.kafka.topic_prefix in place of topics or topics_pattern")
	}
	return nil
}
