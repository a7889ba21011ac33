package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kafka is the other source: what Debezium has written into topics.
type Kafka struct {
	Brokers []string // host:port
	Group   string
	// Exactly one of the three says which topics are read.
	TopicPrefix   string // PREFIX.SCHEMA.TABLE of the entries' tables
	Topics        []string
	TopicsPattern string // RE2, anchored only where it says so

	InstanceID     string // group.instance.id; empty: none
	SessionTimeout time.Duration
	IsolationLevel string // read_committed, read_uncommitted
	TLS            TLS
	SASL           SASL
	SchemaRegistry Endpoint // its URL is empty: records are JSON
	Connect        Connect  // its URL is empty: the connector is nobody's business here
	// Placeholder stands for a value that the log does not carry.
	Placeholder       string
	DeadletterTopic   string
	DeadletterMaxRate int // a minute
}

// SASL is how to log in to the brokers.
type SASL struct {
	Mechanism    string // plain, scram-sha-256, scram-sha-512; empty: no login
	Username     string
	Password     Secret // as written, or the content of PasswordFile
	PasswordFile string
}

// Endpoint is a server that is asked over HTTP.
type Endpoint struct {
	URL          URL // without a slash at its end
	Username     string
	Password     Secret // as written, or the content of PasswordFile
	PasswordFile string
	TLS          TLS
}

// Connect is Kafka Connect, and what its connector for us is made of.
type Connect struct {
	Endpoint
	Connector   string
	Restart     bool // a failed task is restarted
	Slot        string
	Publication string
	// Database and SchemaRegistry are how the workers of Connect reach both;
	// empty: as we do. ConnectorConnString gives the former.
	Database       URL
	SchemaRegistry URL
}

// deadletterSuffix is what the topic of dead letters has behind the group.
const deadletterSuffix = ".deadletter"

var kafkaSettings = slices.Concat(
	[]setting{
		{
			path: "source.kafka",
			doc:  "Topics that Debezium's PostgreSQL connector writes. Not beside postgres.",
		},
		{
			path:     "source.kafka.brokers",
			doc:      "Brokers to begin with, each as host:port.",
			example:  "[localhost:9092]",
			required: true,
			check:    checkBroker,
			at:       func(c *Config, _ *Entry) any { return &c.Source.Kafka.Brokers },
		},
		{
			path:    "source.kafka.group",
			doc:     "Consumer group: its instances share the partitions. One for each cache.",
			initial: "unstale",
			check:   checkGroup,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Group },
		},
		{
			path:    "source.kafka.topic_prefix",
			doc:     "The connector's topic.prefix: the topics are PREFIX.SCHEMA.TABLE of the entries' tables. Give this, topics or topics_pattern.",
			example: "cdc",
			check:   checkTopic,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.TopicPrefix },
		},
		{
			path:    "source.kafka.topics",
			doc:     "The topics by name, where they are named otherwise.",
			example: "[products, orders]",
			check:   checkTopic,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Topics },
		},
		{
			path:    "source.kafka.topics_pattern",
			doc:     "The topics by a regular expression (RE2), where a RegexRouter names them. It matches anywhere in a name unless ^ and $ say otherwise.",
			example: `^cdc\..*$`,
			check:   checkPattern,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.TopicsPattern },
		},
		{
			path:    "source.kafka.instance_id",
			doc:     "Name of this instance in the group (group.instance.id): one that comes back under its name within session_timeout has its partitions again, without a rebalance. Each instance needs another one.",
			example: "unstale-1",
			check:   checkTopic,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.InstanceID },
		},
		{
			path:    "source.kafka.session_timeout",
			doc:     "How long an instance may be silent before others take its partitions; it gives a sign three times as often. A broker lets nobody into the group with less than its group.min.session.timeout.ms, 6s by default, or more than its group.max.session.timeout.ms.",
			initial: "10s",
			min:     int64(time.Second),
			max:     int64(30 * time.Minute),
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.SessionTimeout },
		},
		{
			path:    "source.kafka.isolation_level",
			doc:     "Whether records of transactions that were aborted are read: read_committed leaves them out.",
			initial: "read_committed",
			enum:    []string{"read_committed", "read_uncommitted"},
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.IsolationLevel },
		},
		{
			path:    "source.kafka.tls",
			doc:     "TLS to the brokers: true, or a mapping, which may be empty. Left out: no TLS.",
			example: "true",
			short:   "enabled",
		},
		{
			path:    "source.kafka.tls.enabled",
			doc:     "Whether to connect with TLS. Left out of a mapping: yes.",
			example: "true",
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.TLS.Enabled },
		},
	},
	tlsFiles("source.kafka.tls", "brokers' certificates", "broker", func(c *Config) *TLS { return &c.Source.Kafka.TLS }),
	[]setting{
		{
			path: "source.kafka.sasl",
			doc:  "Login to the brokers. Left out: none.",
		},
		{
			path:     "source.kafka.sasl.mechanism",
			doc:      "How the password is shown: plain sends it as it is, so use it with tls.",
			example:  "scram-sha-512",
			required: true,
			enum:     []string{"plain", "scram-sha-256", "scram-sha-512"},
			at:       func(c *Config, _ *Entry) any { return &c.Source.Kafka.SASL.Mechanism },
		},
		{
			path:     "source.kafka.sasl.username",
			doc:      "User.",
			example:  "unstale",
			required: true,
			at:       func(c *Config, _ *Entry) any { return &c.Source.Kafka.SASL.Username },
		},
	},
	passwords("source.kafka.sasl", "KAFKA_PASSWORD", "kafka-password",
		func(c *Config) (*Secret, *string) {
			return &c.Source.Kafka.SASL.Password, &c.Source.Kafka.SASL.PasswordFile
		}),
	[]setting{
		{
			path:    "source.kafka.schema_registry",
			doc:     "The registry of the records' Avro schemas: an http:// or https:// URL, or a mapping. Left out: records are JSON.",
			example: "http://localhost:8081",
			short:   "url",
		},
		{
			path:     "source.kafka.schema_registry.url",
			doc:      "Its Confluent API. A path is kept: Apicurio has it under /apis/ccompat/v7.",
			example:  "http://localhost:8081",
			required: true,
			check:    checkHTTP,
			at:       func(c *Config, _ *Entry) any { return &c.Source.Kafka.SchemaRegistry.URL },
		},
	},
	login("source.kafka.schema_registry", "REGISTRY_PASSWORD", "registry-password", "registry", func(c *Config) *Endpoint { return &c.Source.Kafka.SchemaRegistry }),
	[]setting{
		{
			path:    "source.kafka.connect",
			doc:     "Kafka Connect, for unstale connector, for what run and check say of the connector, and for the barrier: an http:// or https:// URL, or a mapping. Left out: the connector is not looked at, and no barrier ends.",
			example: "http://localhost:8083",
			short:   "url",
		},
		{
			path:     "source.kafka.connect.url",
			doc:      "Its REST API. A path is kept.",
			example:  "http://localhost:8083",
			required: true,
			check:    checkHTTP,
			at:       func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.URL },
		},
	},
	login("source.kafka.connect", "CONNECT_PASSWORD", "connect-password", "connect", func(c *Config) *Endpoint { return &c.Source.Kafka.Connect.Endpoint }),
	[]setting{
		{
			path:    "source.kafka.connect.connector",
			doc:     "Name of the connector. Default: that of the group.",
			example: "shop-cdc",
			check:   checkConnector,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.Connector },
		},
		{
			path:    "source.kafka.connect.restart",
			doc:     "Whether run restarts a task that has failed, after a while that grows with each time.",
			initial: "false",
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.Restart },
		},
		{
			path:    "source.kafka.connect.slot",
			doc:     "Replication slot of the connector.",
			initial: "unstale",
			check:   checkSlot,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.Slot },
		},
		{
			path:    "source.kafka.connect.publication",
			doc:     "Publication of the connector.",
			initial: "unstale",
			check:   checkPublication,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.Publication },
		},
		{
			path:    "source.kafka.connect.database",
			doc:     "The database as Connect's workers reach it, where they do so by another address or as another user. The password of database holds for it too, if it has none of its own. Files of TLS, such as sslrootcert, are those of the workers.",
			example: "postgres://debezium@db.internal:5432/shop",
			check:   checkDatabaseURL,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.Database },
		},
		{
			path:    "source.kafka.connect.schema_registry",
			doc:     "The registry as Connect's workers reach it, where they do so by another URL.",
			example: "http://schema-registry:8081",
			check:   checkHTTP,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Connect.SchemaRegistry },
		},
		{
			path:    "source.kafka.placeholder",
			doc:     "The connector's unavailable.value.placeholder: what it writes for a value that the log does not carry. It is never cached.",
			initial: "__debezium_unavailable_value",
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.Placeholder },
		},
		{
			path:    "source.kafka.deadletter_topic",
			doc:     "Topic of the changes that could not be applied; it is made when it is first needed. Default: GROUP.deadletter.",
			example: "unstale.deadletter",
			check:   checkTopic,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.DeadletterTopic },
		},
		{
			path:    "source.kafka.deadletter_max_rate",
			doc:     "Dead letters in a minute. Before there are more than that the service holds: a topic that cannot be read at all must not become a topic of dead letters.",
			initial: "10",
			min:     0,
			max:     1_000_000,
			at:      func(c *Config, _ *Entry) any { return &c.Source.Kafka.DeadletterMaxRate },
		},
	},
)

// login is who we are to an endpoint, and its TLS.
func login(path, variable, file, host string, at func(*Config) *Endpoint) []setting {
	return slices.Concat(
		[]setting{{
			path:    path + ".username",
			doc:     "User (HTTP basic authentication). Default: that of the URL, else none.",
			example: "unstale",
			at:      func(c *Config, _ *Entry) any { return &at(c).Username },
		}},
		passwords(path, variable, file, func(c *Config) (*Secret, *string) { return &at(c).Password, &at(c).PasswordFile }),
		[]setting{{
			path: path + ".tls",
			doc:  "TLS; needs an https:// URL. Left out: the authorities of the system are trusted.",
		}},
		tlsFiles(path+".tls", "server's certificate", host, func(c *Config) *TLS { return &at(c).TLS }),
	)
}

func passwords(path, variable, file string, at func(*Config) (*Secret, *string)) []setting {
	return []setting{
		{
			path:    path + ".password",
			doc:     "Password; better taken from the environment or from a file.",
			example: "${" + variable + "}",
			at:      func(c *Config, _ *Entry) any { password, _ := at(c); return password },
		},
		{
			path:    path + ".password_file",
			doc:     "File that holds the password; one newline at its end is cut.",
			example: "/run/secrets/" + file,
			file:    true,
			at:      func(c *Config, _ *Entry) any { _, file := at(c); return file },
		},
	}
}

func tlsFiles(path, certificates, host string, at func(*Config) *TLS) []setting {
	return []setting{
		{
			path:    path + ".ca_file",
			doc:     fmt.Sprintf("PEM file of the authorities that may have signed the %s.", certificates),
			example: "ca.pem",
			file:    true,
			at:      func(c *Config, _ *Entry) any { return &at(c).CAFile },
		},
		{
			path:    path + ".cert_file",
			doc:     "PEM file of the client's certificate; needs key_file.",
			example: "client.pem",
			file:    true,
			at:      func(c *Config, _ *Entry) any { return &at(c).CertFile },
		},
		{
			path:    path + ".key_file",
			doc:     "PEM file of the key of the client's certificate; needs cert_file.",
			example: "client.key",
			file:    true,
			at:      func(c *Config, _ *Entry) any { return &at(c).KeyFile },
		},
		{
			path:    path + ".server_name",
			doc:     fmt.Sprintf("Name that the %s must have, where it is not the host that is connected to.", certificates),
			example: host + ".example.com",
			at:      func(c *Config, _ *Entry) any { return &at(c).ServerName },
		},
	}
}

func checkBroker(value string) (string, *fault) {
	const mend = "write host:port, like localhost:9092"
	host, port, err := net.SplitHostPort(value)
	switch {
	case strings.Contains(value, "://"):
		return "", &fault{text: fmt.Sprintf("%s is a URL", quote(value)), mend: mend + "; TLS and login have keys of their own"}
	case err != nil || host == "" || strings.ContainsAny(host, " /,@"):
		return "", &fault{text: fmt.Sprintf("%s is no address", quote(value)), mend: mend}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", &fault{offset: len(value) - len(port), text: fmt.Sprintf("%s is no port", quote(port)), mend: mend}
	}
	return value, nil
}

// topicBytesMax is Kafka's limit.
const topicBytesMax = 249

// topicPattern is Kafka's rule for names of topics and for group.instance.id.
var topicPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func checkTopic(value string) (string, *fault) { return checkKafkaName(value, topicBytesMax) }

// checkGroup is stricter than Kafka, where a group may have any name: here it is
// the beginning of a topic's.
func checkGroup(value string) (string, *fault) {
	return checkKafkaName(value, topicBytesMax-len(deadletterSuffix))
}

func checkKafkaName(value string, bytesMax int) (string, *fault) {
	if !topicPattern.MatchString(value) || len(value) > bytesMax || value == "." || value == ".." {
		return "", &fault{text: fmt.Sprintf("%s is no name in Kafka", quote(value)),
			mend: fmt.Sprintf("write 1 to %d letters, digits, dots, underscores and hyphens", bytesMax)}
	}
	return value, nil
}

// checkConnector admits what needs no escaping in a path of Connect's API.
func checkConnector(value string) (string, *fault) {
	if value == "" || value == "." || value == ".." || len(value) > 255 || strings.ContainsAny(value, "/\\?#%") || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", &fault{text: fmt.Sprintf("%s is no name of a connector", quote(value)),
			mend: "write 1 to 255 bytes, none of them / \\ ? # or %"}
	}
	return value, nil
}

func checkPattern(value string) (string, *fault) {
	if value == "" {
		return "", &fault{text: "is empty", mend: `write a regular expression, like '^cdc\..*$'`}
	}
	_, err := regexp.Compile(value)
	if wrong, ok := errors.AsType[*syntax.Error](err); ok {
		return "", &fault{offset: max(0, strings.Index(value, wrong.Expr)),
			text: fmt.Sprintf("is no regular expression: %s: %s", wrong.Code, quote(wrong.Expr)),
			mend: `write RE2, which has neither look-ahead nor back-references, in single quotes: '^cdc\..*$'`}
	}
	if err != nil {
		return "", &fault{text: "is no regular expression: " + err.Error()}
	}
	return value, nil
}

func checkHTTP(value string) (string, *fault) {
	const mend = "write http://host:port, or https://host:port for TLS"
	scheme, _, isURL := strings.Cut(value, "://")
	switch {
	case value == "":
		return "", &fault{text: "is empty", mend: mend}
	case !isURL:
		return "", &fault{text: "is no URL", mend: mend}
	case scheme != "http" && scheme != "https":
		return "", &fault{text: "is no URL of HTTP", mend: mend}
	}
	// What url.Parse says is not passed on: it quotes the password.
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return "", &fault{text: "is a URL with a mistake in it",
			mend: "percent-encode what is special in user and password (/ is %2F, @ is %40, # is %23), and look at the port"}
	case u.Host == "":
		return "", &fault{text: "has no host", mend: mend}
	case u.RawQuery != "" || u.Fragment != "":
		return "", &fault{offset: strings.IndexAny(value, "?#"), text: "has more than a path", mend: "take out what follows ? or #"}
	}
	return strings.TrimRight(value, "/"), nil
}

// agreeKafka checks what concerns several settings of the source, and fills in
// the defaults that hang on others.
func (r *reader) agreeKafka() {
	k := &r.config.Source.Kafka
	r.config.Source.FromKafka = r.has("source.kafka")
	if k.DeadletterTopic == "" {
		k.DeadletterTopic = k.Group + deadletterSuffix
	}
	if k.Connect.Connector == "" {
		k.Connect.Connector = k.Group
	}
	if !r.config.Source.FromKafka {
		return
	}
	if r.hasBelow("source.postgres") {
		const mend = "keep one of them: postgres reads the database's log itself, kafka what Debezium has made of it"
		r.addAt("source.postgres", "source.kafka is there too", mend)
		r.addAt("source.kafka", "source.postgres is there too", mend)
	}
	r.agreeTopics()
	r.agreePassword("source.kafka.sasl", "", &k.SASL.Password, k.SASL.PasswordFile)
	if r.hasBelow("source.kafka.sasl") && !r.has("source.kafka.sasl.password") && !r.has("source.kafka.sasl.password_file") {
		r.addAt("source.kafka.sasl", "has no password", "write password_file: /run/secrets/kafka-password, or password: ${KAFKA_PASSWORD}")
	}
	r.pairOfFiles("source.kafka.tls")
	r.agreeEndpoint("source.kafka.schema_registry", &k.SchemaRegistry)
	r.agreeEndpoint("source.kafka.connect", &k.Connect.Endpoint)
	for i := range r.config.Entries {
		if e := &r.config.Entries[i]; e.Lookup == LookupIndex {
			r.addAt(e.Path("lookup"), "is index, which is kept up from one stream, and the changes of a table come in several partitions", "write database, or read PostgreSQL's log itself: source.postgres")
		}
	}
	r.withoutDatabase()
}

// agreeTopics wants to know, in one way, which topics to read.
func (r *reader) agreeTopics() {
	k := &r.config.Source.Kafka
	var given []string
	for _, name := range []string{"topic_prefix", "topics", "topics_pattern"} {
		if r.has("source.kafka." + name) {
			given = append(given, name)
		}
	}
	switch {
	case len(given) == 0:
		r.addAt("source.kafka", "does not say which topics to read", "write topic_prefix: cdc, with the connector's topic.prefix; or topics, or topics_pattern")
	case len(given) > 1:
		for _, name := range given[1:] {
			r.addAt("source.kafka."+name, given[0]+" says already which topics to read", "keep one of them")
		}
	}
	// What could not be applied would come back as a change, for ever.
	const text, mend = "the topic of dead letters, %s, is one of these", "name it in deadletter_topic, or leave it out here"
	if i := slices.Index(k.Topics, k.DeadletterTopic); i >= 0 {
		r.addAt(element("source.kafka.topics", i), fmt.Sprintf(text, k.DeadletterTopic), mend)
	}
	if k.TopicsPattern != "" && regexp.MustCompile(k.TopicsPattern).MatchString(k.DeadletterTopic) {
		r.addAt("source.kafka.topics_pattern", fmt.Sprintf(text, k.DeadletterTopic), mend)
	}
}

// withoutDatabase is what else holds where the service has only the topics.
func (r *reader) withoutDatabase() {
	if r.has("database") {
		return
	}
	for i := range r.config.Entries {
		e := &r.config.Entries[i]
		if e.OnChange == Refresh {
			r.addAt(e.Path("on_change"), "refresh loads rows from the database, and none is given",
				"write database: ${DATABASE_URL}; or on_change: warm, update or invalidate")
		}
		if e.Query != "" {
			r.addAt(e.Path("query"), "the database tells what follows from a query, and none is given", "write database: ${DATABASE_URL}; or table")
		}
		if e.DependsOn != nil {
			r.addAt(e.Path("depends_on"), "the database tells what its tables are, and none is given", "write database: ${DATABASE_URL}; or table")
		}
		if e.Schema == "" {
			e.Schema = "public" // there is no search_path to ask
		}
	}
}

func (r *reader) agreeEndpoint(path string, e *Endpoint) {
	r.agreePassword(path, e.URL, &e.Password, e.PasswordFile)
	r.pairOfFiles(path + ".tls")
	if e.TLS != (TLS{}) && strings.HasPrefix(string(e.URL), "http://") {
		r.addAt(path+".tls", "the URL says to connect without TLS", "write https:// in the URL, or take tls out")
	}
	if r.has(path+".username") && hasUser(e.URL) {
		r.addAt(path+".username", "the URL has a user too", "keep one of them")
	}
}

func hasUser(u URL) bool {
	parsed, err := url.Parse(string(u))
	return err == nil && parsed.User != nil
}
