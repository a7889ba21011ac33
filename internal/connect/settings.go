package connect

import (
	"slices"
	"strconv"
	"strings"
)

// A rule is one key of the connector: our value, and what any other does.
type rule struct {
	key string
	// ours is the value; it may hang on the need, or be empty: then the key is
	// not ours to set.
	ours  string
	ourOf func(*Need) string
	why   string
	whyOf func(value string) string // where it hangs on the value
	// initial is what Debezium takes where the key is absent.
	initial string
	// serves lists other values that are as good; servesIf decides where a list
	// would not do. A * serves whatever it is.
	serves   []string
	servesIf func(n *Need, value string) bool
	// differs is what a value that does not serve does; differsOf where it hangs
	// on the value.
	differs   string
	differsOf func(value string) string
	// wrong: a value that does not serve loses or alters changes. Without it
	// there is only something to know, as with those that are milder.
	wrong  bool
	milder []string
	// moves: with another value it is another connector, which begins anew.
	moves  bool
	secret bool
	login  bool // to the database: see Difference.Kept
	sent   bool // it decides what is in the records
}

func (r *rule) value(n *Need) string {
	if r.ourOf != nil {
		return r.ourOf(n)
	}
	return r.ours
}

func (r *rule) good(n *Need, value string) bool {
	if value == "" {
		value = r.initial
	}
	switch {
	case value == r.value(n):
		return true
	case r.servesIf != nil:
		return r.servesIf(n, value)
	}
	return slices.Contains(r.serves, value) || slices.Contains(r.serves, "*")
}

// isWrong is asked of values that do not serve.
func (r *rule) isWrong(value string) bool {
	if value == "" {
		value = r.initial
	}
	return r.wrong && !slices.Contains(r.milder, value)
}

func (r *rule) differsAs(value string) string {
	if r.differsOf != nil {
		if value == "" {
			value = r.initial
		}
		return r.differsOf(value)
	}
	return r.differs
}

// Value is what a connector takes for a key of ours: what it has, or Debezium's
// default.
func Value(have map[string]string, key string) string {
	if value := have[key]; value != "" {
		return value
	}
	if i := slices.IndexFunc(rules, func(r rule) bool { return r.key == key }); i >= 0 {
		return rules[i].initial
	}
	return ""
}

const (
	heartbeatQuery  = "SELECT pg_logical_emit_message(true, 'unstale.heartbeat', '')"
	heartbeatPrefix = "unstale.heartbeat"
	// pollMax is how long a change may wait before somebody ought to know, in
	// milliseconds.
	pollMax = 100
	// restartWaitMax is the same for what stands still when the server is back.
	restartWaitMax = 5000
)

var anything = []string{"*"}

var rules = slices.Concat(
	[]rule{
		{
			key: "connector.class", ours: Class, wrong: true, moves: true,
			why:     "Debezium's connector for PostgreSQL",
			differs: "only Debezium's connector for PostgreSQL is understood",
		},
		{
			key: "tasks.max", ours: "1", initial: "1", serves: anything,
			why: "a slot has one reader",
		},

		// Where from.
		{
			key: "database.hostname", ourOf: func(n *Need) string { return n.Database.Host }, moves: true, servesIf: reference,
			why:     "the primary, as the workers of Connect reach it",
			differs: "if it is the same server by another name, write that into source.kafka.connect.database",
		},
		{
			key: "database.port", ourOf: port, initial: "5432", moves: true, servesIf: reference,
			why:     "its port",
			differs: "if it is the same server by another port, write that into source.kafka.connect.database",
		},
		{
			key: "database.user", ourOf: func(n *Need) string { return n.Database.User }, login: true, servesIf: reference,
			why:     "a role that may stream (LOGIN REPLICATION) and read the tables",
			differs: "if another role is right, write it into source.kafka.connect.database",
		},
		{
			key: "database.password", ourOf: func(n *Need) string { return n.Database.Password }, login: true, secret: true, servesIf: reference,
			why:     "its password; Connect keeps it in a topic, as it is, unless it is a reference like ${file:/secrets:db}",
			differs: "it is not the password that the configuration has",
		},
		{
			key: "database.dbname", ourOf: func(n *Need) string { return n.Database.Name }, wrong: true, moves: true, servesIf: reference,
			why:     "the database of the entries' tables",
			differs: "the changes are those of another database",
		},
		{
			key: "plugin.name", ours: "pgoutput", initial: "decoderbufs", moves: true,
			why:     "PostgreSQL's own output: nothing to install on the server",
			differs: "values come by another way, which is not tested here",
		},
		{
			key: "slot.name", ourOf: func(n *Need) string { return n.Slot }, initial: "debezium", moves: true,
			why:     "a slot of the connector's own",
			differs: "status and check look at the slot that the configuration names: write this one into source.kafka.connect.slot",
		},
		{
			key: "slot.failover", ours: "true", initial: "false", serves: anything,
			why: "standbys keep a copy of the slot, from PostgreSQL 17 on: it survives a failover",
		},
		{
			key: "slot.drop.on.stop", initial: "false", ours: "false", wrong: true,
			why:     "what changes while the connector is stopped is kept",
			differs: "the slot is dropped when the connector stops: what changes until it starts again is never seen",
		},
		{
			key: "publication.name", ourOf: func(n *Need) string { return n.Publication }, initial: "dbz_publication", moves: true,
			why:     "a publication of the connector's own",
			differs: "check looks at the publication that the configuration names: write this one into source.kafka.connect.publication",
		},
		{
			key: autocreateMode, ourOf: (*Need).autocreate, initial: "all_tables",
			servesIf: func(*Need, string) bool { return true }, // see autocreation
			whyOf: func(value string) string {
				if value == "disabled" {
					return "the publication is there, and sends more than the tables below: the connector leaves it as it is"
				}
				return "the connector creates the publication, with the tables below, unless it is there; for that its role must own them"
			},
		},
		{
			key: "publish.via.partition.root", ours: "true", initial: "false", servesIf: func(*Need, string) bool { return true }, // see partitions
			why: "the rows of partitions come as those of their table, in one topic; it holds for a publication that the connector makes",
		},
		{
			key: "table.include.list", ourOf: tablePatterns, servesIf: func(*Need, string) bool { return true }, // see missing
			why: "the tables of the entries; what others write is not even sent",
		},
		{
			key: "snapshot.mode", ours: "when_needed", initial: "initial", serves: []string{"always"}, wrong: true, milder: []string{"initial"},
			why: "the rows that are there already fill the entries with on_change: warm; and where the slot is lost, a copy of the rows shows in the topics that changes are missing, so that the entries are swept",
			differsOf: func(value string) string {
				switch value {
				case "initial":
					return "where its slot is lost the task fails, and waits for a person"
				case "initial_only":
					return "it ends after the first copy of the rows: no change is ever sent"
				}
				return "a connector that begins anew, because its slot or its position is lost, sends no copy of the rows: nothing shows that changes are missing"
			},
		},

		// What is sent.
		{
			key: "topic.prefix", ourOf: func(n *Need) string { return n.TopicPrefix }, wrong: true, moves: true,
			why:     "topics are PREFIX.SCHEMA.TABLE",
			differs: "its topics are others than source.kafka.topic_prefix says: none of its changes is read",
		},
		{
			key: "skipped.operations", sent: true, ours: "none", initial: "t", wrong: true,
			why: "by its default the connector leaves TRUNCATE out",
			differsOf: func(value string) string {
				var lost []string
				for _, letter := range strings.Split(value, ",") {
					if name, ok := operations[strings.TrimSpace(letter)]; ok {
						lost = append(lost, name)
					}
				}
				if len(lost) == 0 {
					lost = []string{value}
				}
				return strings.Join(lost, ", ") + " is never sent: what it makes stale stays in the cache"
			},
		},
		{
			key: "tombstones.on.delete", sent: true, ours: "true", initial: "true",
			why:     "a compacted topic forgets rows that are gone",
			differs: "a compacted topic keeps the rows that are gone for ever",
		},
		{
			key: "unavailable.value.placeholder", ourOf: func(n *Need) string { return n.Placeholder }, initial: "__debezium_unavailable_value", wrong: true,
			why:     "what stands for a long value that an UPDATE has not touched",
			differs: "it would be taken for a value: write it into source.kafka.placeholder",
		},
		{
			key: "decimal.handling.mode", sent: true, ours: "string", initial: "precise",
			why: "every digit, and NaN and the infinities",
			differsOf: func(value string) string {
				if value == "double" {
					return "numeric values lose digits: what holds one is dropped, never set"
				}
				return "NaN and the infinities of numeric arrive as NULL, and one without a scale loses its last zeros: what holds such a value is dropped, never set"
			},
		},
		{
			key: "time.precision.mode", sent: true, ours: "adaptive_time_microseconds", initial: "adaptive", serves: []string{"adaptive", "microseconds"},
			why: "every microsecond",
			differsOf: func(value string) string {
				if value == "nanoseconds" {
					return "times outside 1677 to 2262 overflow: what holds a time is dropped, never set"
				}
				return "times lose their microseconds or their form: what holds one is dropped, never set"
			},
		},
		{
			key: "interval.handling.mode", sent: true, ours: "string", initial: "numeric",
			why:     "months, days and seconds as they are",
			differs: "a month counts as 30.4 days: what holds an interval is dropped, never set",
		},
		{
			key: "hstore.handling.mode", sent: true, ours: "json", initial: "json", serves: []string{"map"},
			why:     "one form for hstore, whatever the converter",
			differs: "what holds an hstore is dropped, never set",
		},
		{
			key: "binary.handling.mode", sent: true, ours: "bytes", initial: "bytes",
			why:     "bytea shows as bytes in the schema: it needs no guess",
			differs: "bytea shows as text in the schema: what holds one may be dropped in place of set",
		},
		{
			key: "include.unknown.datatypes", sent: true, ours: "true", initial: "false",
			why:     "a column whose type the connector does not know is sent, so that it is not taken for absent",
			differs: "a column whose type the connector does not know is left out: its row is dropped, never set",
		},
		{
			key: "column.propagate.source.type", sent: true, ours: ".*", initial: "",
			servesIf: func(_ *Need, value string) bool { return value != "" },
			why:      "each column says its type and its name in the database, which Avro's rules may have changed",
			differs:  "a column whose name Avro's rules have changed, or whose type has several forms, is known only with database: what holds it is else dropped, never set",
		},
		{
			key: "event.processing.failure.handling.mode", ours: "fail", initial: "fail", wrong: true,
			why:     "a change that cannot be read stops the task, and is seen",
			differs: "a change that the connector cannot read is left out without an error",
		},
		{
			key: "errors.tolerance", ours: "none", initial: "none", wrong: true,
			why:     "a record that cannot be converted stops the task, and is seen",
			differs: "a record that cannot be converted is left out without an error",
		},

		// How, and when.
	},
	converter("key"), converter("value"),
	[]rule{
		{
			key: "schema.name.adjustment.mode", sent: true, ourOf: ifAvro("avro"), initial: "none", servesIf: ifJSON("avro_unicode"),
			why:     "Avro allows fewer names than PostgreSQL",
			differs: "a table or a schema whose name Avro does not allow stops the task",
		},
		{
			key: "field.name.adjustment.mode", sent: true, ourOf: ifAvro("avro"), initial: "none", servesIf: ifJSON("avro_unicode"),
			why:     "the same for columns",
			differs: "a column whose name Avro does not allow stops the task",
		},
		{
			key: "poll.interval.ms", ours: "10", initial: "500",
			servesIf: func(_ *Need, value string) bool {
				n, err := strconv.Atoi(value)
				return err == nil && n <= pollMax
			},
			why:     "how long a change may wait in the connector",
			differs: "each change waits up to that long in the connector, in milliseconds",
		},
		{
			key: "heartbeat.interval.ms", ours: "1000", initial: "0",
			servesIf: func(_ *Need, value string) bool { return value != "0" },
			why:      "the position moves while the tables are quiet: the server can free its log",
			differs:  "while the tables are quiet the slot keeps the server's log",
		},
		{
			key: "heartbeat.action.query", ours: heartbeatQuery,
			servesIf: func(_ *Need, value string) bool { return value != "" },
			why:      "something in the log for the heartbeat to see",
			differs:  "a heartbeat without it sees nothing while the tables are quiet: the slot keeps the server's log",
		},
		{
			key: "message.prefix.exclude.list", ours: heartbeatPrefix, serves: anything,
			why: "it is not sent on",
		},
		{
			key: "retriable.restart.connector.wait.ms", ours: "1000", initial: "10000",
			servesIf: func(_ *Need, value string) bool {
				n, err := strconv.Atoi(value)
				return err == nil && n <= restartWaitMax
			},
			why:     "how long the connector waits before it tries again to reach a server that was away",
			differs: "after a restart of the server nobody reads the log for that long, in milliseconds, and what is cached grows old meanwhile",
		},
		{
			key: "extended.headers.enabled", sent: true, ours: "false", initial: "true",
			why:     "headers on each record that nobody reads",
			differs: "each record carries headers that nobody reads: fewer records a second",
		},
		{
			key: "topic.creation.default.partitions", ours: "-1", serves: anything,
			why: "Connect creates the topics where the brokers do not, with the brokers' defaults",
		},
		{
			key: "topic.creation.default.replication.factor", ours: "-1", serves: anything,
			why: "the same",
		},
	},
)

var operations = map[string]string{"c": "INSERT", "u": "UPDATE", "d": "DELETE", "t": "TRUNCATE"}

func port(n *Need) string {
	if n.Database.Port == 0 {
		return ""
	}
	return strconv.Itoa(int(n.Database.Port))
}

func tablePatterns(n *Need) string {
	var patterns []string
	for _, t := range n.Tables {
		patterns = append(patterns, t.pattern())
	}
	return strings.Join(patterns, ",")
}

// reference: what Connect replaces cannot be compared.
func reference(_ *Need, value string) bool { return isReference(value) }

func ifAvro(value string) func(*Need) string {
	return func(n *Need) string {
		if n.Registry == nil {
			return ""
		}
		return value
	}
}

func ifJSON(or ...string) func(*Need, string) bool {
	return func(n *Need, value string) bool { return n.Registry == nil || slices.Contains(or, value) }
}

// converter has the rules of the converter of keys or of values.
func converter(side string) []rule {
	prefix := side + ".converter"
	// when is the value where that converter is used.
	when := func(class string, value func(*Need) string) func(*Need) string {
		return func(n *Need) string {
			used := JSON
			if n.Registry != nil {
				used = n.Registry.Converter
			}
			if used != class {
				return ""
			}
			return value(n)
		}
	}
	always := func(value string) func(*Need) string { return func(*Need) string { return value } }
	address := func(n *Need) string { return n.Registry.URL }
	user := func(n *Need) string { return n.Registry.Username }
	password := func(n *Need) string { return n.Registry.Password }
	// basic is for a login, if there is one.
	basic := func(value func(*Need) string) func(*Need) string {
		return func(n *Need) string {
			if user(n) == "" {
				return ""
			}
			return value(n)
		}
	}
	const elsewhere = "if it is the same registry by another URL, write that into source.kafka.connect.schema_registry"
	const login = "it is not the login that the configuration has"
	return []rule{
		{
			key: prefix, servesIf: func(*Need, string) bool { return true }, // see converterOf
			ourOf: func(n *Need) string {
				if n.Registry == nil {
					return JSON
				}
				return n.Registry.Converter
			},
			why: "how " + side + "s are written",
		},
		{
			key: prefix + ".schemas.enable", sent: true, ourOf: when(JSON, always("true")), initial: "true",
			why:     "each record says what its values are",
			differs: "records do not say what their values are: types come from the database, without which what has several forms is dropped, never set; and what holds a time or timestamp without a zone is dropped all the same",
		},
		{
			key: prefix + ".replace.null.with.default", sent: true, ourOf: when(JSON, always("false")), initial: "true",
			why:     "a NULL in a column that has a default stays a NULL",
			differs: "a NULL in a column that has a default is sent as the default: what holds that is dropped, never set",
		},
		{
			key: prefix + ".schema.registry.url", ourOf: when(ConfluentAvro, address), servesIf: reference,
			why:     "where the converter keeps the schemas",
			differs: elsewhere,
		},
		{
			key: prefix + ".basic.auth.credentials.source", ourOf: when(ConfluentAvro, basic(always("USER_INFO"))), servesIf: reference,
			why:     "its login there",
			differs: login,
		},
		{
			key: prefix + ".basic.auth.user.info", secret: true, servesIf: reference,
			ourOf:   when(ConfluentAvro, basic(func(n *Need) string { return user(n) + ":" + password(n) })),
			why:     "user and password",
			differs: login,
		},
		{
			key: prefix + ".ignore.default.for.nullables", sent: true, ourOf: when(ConfluentAvro, always("true")), initial: "false",
			why:     "a NULL in a column that has a default stays a NULL",
			differs: "a NULL in a column that has a default is sent as the default: what holds that is dropped, never set",
		},
		{
			key: prefix + ".apicurio.registry.url", ourOf: when(ApicurioAvro, func(n *Need) string { return n.Registry.apicurioURL() }), servesIf: reference,
			why:     "where the converter keeps the schemas",
			differs: elsewhere,
		},
		{
			key: prefix + ".apicurio.auth.username", ourOf: when(ApicurioAvro, user), servesIf: reference,
			why:     "its login there",
			differs: login,
		},
		{
			key: prefix + ".apicurio.auth.password", ourOf: when(ApicurioAvro, password), servesIf: reference, secret: true,
			why:     "its password there",
			differs: login,
		},
		{
			key: prefix + ".apicurio.registry.auto-register", ourOf: when(ApicurioAvro, always("true")), serves: anything,
			why: "new schemas are put there",
		},
		{
			key: prefix + ".apicurio.registry.find-latest", sent: true, ourOf: when(ApicurioAvro, always("false")), initial: "false", wrong: true,
			why:     "each record names the schema that it was written with",
			differs: "records name the latest schema, not the one that they were written with",
		},
		{
			key: prefix + ".apicurio.registry.as-confluent", sent: true, ourOf: when(ApicurioAvro, always("true")), initial: "false", wrong: true,
			why:     "ids of four bytes, as Confluent's converter writes them",
			differs: "ids have eight bytes: no record can be read",
		},
		{
			key: prefix + ".apicurio.registry.use-id", sent: true, ourOf: when(ApicurioAvro, always("contentId")), initial: "globalId", wrong: true,
			why:     "the ids that the Confluent API knows",
			differs: "the Confluent API knows those ids as other schemas, or not at all",
		},
		{
			key: prefix + ".apicurio.registry.headers.enabled", sent: true, ourOf: when(ApicurioAvro, always("false")), initial: "false", wrong: true,
			why:     "the id stands in the record itself",
			differs: "ids stand in headers: no record can be read",
		},
	}
}
