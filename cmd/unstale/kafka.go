package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/deadletter"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/kafkasource"
	"github.com/unstale/unstale/internal/plan"
)

// newKafkaSource reads the topics of the configuration. The tables are to be told
// what the catalog says; without a database there is nothing to tell.
func newKafkaSource(c *config.Config, x *examination, planner *plan.Planner, origin func(context.Context) (change.Origin, error), metrics *admin.Metrics, logger *slog.Logger) (apply.Source, *describedTables, error) {
	k := c.Source.Kafka
	client, err := kafkaClient(k)
	if err != nil {
		return nil, nil, err
	}
	tables, err := newTables(k, x, planner)
	if err != nil {
		return nil, nil, err
	}
	if shortSession(k) {
		logger.Warn(shortSessionText, "session_timeout", k.SessionTimeout, "mend", shortSessionMend)
	}
	topics, pattern := kafkaTopics(k, append(x.tableNames(), partitionsOf(x.tables)...))
	letters := newTopicLetters(k, client, x, metrics, logger)
	held := &heldPartition{metrics: metrics}
	source := kafkasource.New(kafkasource.Options{
		Client:         client,
		Group:          k.Group,
		Topics:         topics,
		Pattern:        pattern,
		Instance:       k.InstanceID,
		SessionTimeout: k.SessionTimeout,
		Uncommitted:    k.IsolationLevel == "read_uncommitted",
		Database:       x.database,
		Alias:          x.alias,
		Decoder:        tables.decoder,
		Keep:           letters.keep,
		Holding:        held.tell,
		Origin:         origin,
		Logger:         logger,
	})
	if c.Database.URL != "" {
		options, err := databaseConfig(c)
		if err != nil {
			return nil, nil, err
		}
		tables.look = func(ctx context.Context, name database.Name) (database.Table, error) {
			return lookUp(ctx, options, name)
		}
		if k.TopicsPattern == "" && len(k.Topics) == 0 {
			tables.follow = func(partitions []database.Name) {
				topics, _ := kafkaTopics(k, partitions)
				source.Follow(topics)
			}
		}
	}
	return topicSource{source, letters.topic, held}, tables, nil
}

// lookUp asks the catalog for one table.
func lookUp(ctx context.Context, options *pgx.ConnConfig, name database.Name) (database.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, options)
	if err != nil {
		return database.Table{}, fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	found, err := database.Tables(ctx, conn, []database.Name{name})
	if err != nil {
		return database.Table{}, err
	}
	return found[0], nil
}

// newTables returns tables of which nothing is known yet, with the decoder that
// reads their records.
func newTables(k config.Kafka, x *examination, planner *plan.Planner) (*describedTables, error) {
	schema, err := schemaRegistry(k.SchemaRegistry)
	if err != nil {
		return nil, err
	}
	tables := &describedTables{
		wanted: map[database.Name]bool{}, now: map[database.Name]*debezium.Table{}, roots: map[database.Name]database.Name{}, unrelated: map[database.Name]bool{},
	}
	for _, name := range x.tableNames() {
		tables.wanted[name] = true
	}
	tables.partitioned = slices.ContainsFunc(x.entries, partitioned)
	tables.decoder = debezium.NewDecoder(debezium.Options{
		Schema:      schema,
		Table:       tables.table,
		Wanted:      tables.isWanted,
		Root:        tables.root,
		Compile:     planner.Compile,
		Placeholder: k.Placeholder,
	})
	return tables, nil
}

// kafka looks at the brokers, the topics and the schema registry.
func (fs *findings) kafka(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	k := c.Source.Kafka
	if shortSession(k) {
		fs.addProblem(database.Problem{Severity: database.Advice, Subject: "source.kafka.session_timeout",
			Text: fmt.Sprintf("it is %s: %s", k.SessionTimeout, shortSessionText), Then: shortSessionMend})
	}
	tables, err := tableNames(ctx, c)
	if err != nil {
		return // it was said of the database
	}
	client, err := kafkaClient(k)
	if err != nil {
		fs.add("kafka", err.Error(), "")
		return
	}
	topics, pattern := kafkaTopics(k, tables)
	problems, err := kafkasource.Diagnose(ctx, kafkasource.Options{Client: client, Group: k.Group, Topics: topics, Pattern: pattern})
	if err != nil {
		mend := "look at source.kafka.brokers, tls and sasl"
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			mend = "kafka-acls.sh --add --operation read --operation describe for this user on each of the topics " + strings.Join(topics, ", ")
		}
		fs.add("kafka", err.Error(), mend)
	}
	for _, p := range problems {
		severity := database.Advice
		if p.Wrong {
			severity = database.Wrong
		}
		fs.addProblem(database.Problem{Severity: severity, Subject: p.Subject, Text: p.Text, Mend: []string{p.Mend}})
	}
	if err == nil {
		fs.deadletters(ctx, deadletter.NewTopic(client, k.DeadletterTopic))
	}
	if k.SchemaRegistry.URL == "" {
		return
	}
	schema, err := schemaRegistry(k.SchemaRegistry)
	if err == nil {
		// No registry gives an id that high; it must say so.
		if _, err = schema(ctx, 1<<31-1); errors.Is(err, kafkasource.ErrNoSchema) {
			err = nil
		}
	}
	if err != nil {
		fs.add("schema registry", err.Error(), "look at source.kafka.schema_registry")
	}
}

const (
	// sessionTimeoutMin is what brokers admit by default.
	sessionTimeoutMin = 6 * time.Second

	shortSessionText = "brokers let nobody into the group with a session timeout below their group.min.session.timeout.ms, which is 6s by default"
	shortSessionMend = "write source.kafka.session_timeout: 6s or more, or leave it where the brokers admit less"
)

// shortSession reports whether the brokers may refuse the session timeout. The
// client tries again for as long as they do, and says only that it takes long.
func shortSession(k config.Kafka) bool {
	return k.SessionTimeout != 0 && k.SessionTimeout < sessionTimeoutMin
}

// deadletters looks whether a record that cannot be read could be kept.
func (fs *findings) deadletters(ctx context.Context, topic *deadletter.Topic) {
	defer topic.Close()
	err := topic.Diagnose(ctx)
	if err == nil {
		return
	}
	p := database.Problem{Severity: database.Wrong, Subject: "dead letters", Text: err.Error()}
	if refused, ok := errors.AsType[*change.Refusal](err); ok {
		p.Text, p.Mend = refused.Problem, []string{refused.Mend}
	}
	p.Then = "a partition with a record that cannot be read holds until then"
	fs.addProblem(p)
}

// kafkaClient is how to reach the brokers.
func kafkaClient(k config.Kafka) ([]kgo.Opt, error) {
	options := []kgo.Opt{kgo.SeedBrokers(k.Brokers...), kgo.ClientID(applicationName)}
	secure, err := k.TLSConfig()
	if err != nil {
		return nil, err
	}
	if secure != nil {
		options = append(options, kgo.DialTLSConfig(secure))
	}
	user, password := k.SASL.Username, string(k.SASL.Password)
	switch k.SASL.Mechanism {
	case "plain":
		options = append(options, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "scram-sha-256":
		options = append(options, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	case "scram-sha-512":
		options = append(options, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	}
	return options, nil
}

// schemaRegistry returns how to ask for a schema.
func schemaRegistry(e config.Endpoint) (func(context.Context, uint32) (string, error), error) {
	if e.URL == "" {
		return func(context.Context, uint32) (string, error) {
			return "", &change.Refusal{Problem: "records are in Avro, and there is no schema registry to ask", Mend: "set source.kafka.schema_registry"}
		}, nil
	}
	secure, err := e.TLSConfig()
	if err != nil {
		return nil, fmt.Errorf("source.kafka.schema_registry: %w", err)
	}
	options := []sr.ClientOpt{sr.URLs(e.Address()), sr.UserAgent(applicationName)}
	if secure != nil {
		options = append(options, sr.DialTLSConfig(secure))
	}
	if user, password := e.Login(); user != "" {
		options = append(options, sr.BasicAuth(user, password))
	}
	client, err := sr.NewClient(options...)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, id uint32) (string, error) {
		schema, err := client.SchemaByID(ctx, int(id))
		if refused, ok := errors.AsType[*sr.ResponseError](err); ok {
			return "", refusedSchema(refused)
		}
		if err == nil && schema.Schema == "" {
			err = fmt.Errorf("%s has answered without a schema: %s", e.Address(), isItRegistry)
		}
		return schema.Schema, err
	}, nil
}

const (
	// codeNoSchema is the registry's own word for an id that it does not have, of
	// Confluent's and of Apicurio's (3.0.9). A 404 without it is a proxy's, or that
	// of a path where no registry is: it says nothing of the schema.
	codeNoSchema = 40403
	// registryMessageMax bounds, in characters, what is passed on of an answer.
	registryMessageMax = 200

	isItRegistry = "is source.kafka.schema_registry its Confluent API? Apicurio's is below /apis/ccompat/v7"
)

// refusedSchema says in one line what the registry has answered in place of a
// schema. It is ErrNoSchema only where the registry itself says so.
func refusedSchema(refused *sr.ResponseError) error {
	text := fmt.Sprintf("%s %s: %d %s", refused.Method, refused.URL, refused.StatusCode, http.StatusText(refused.StatusCode))
	if refused.ErrorCode != 0 { // else it is a page for people, of whoever stands in between
		message := []rune(strings.Join(strings.Fields(refused.Message), " "))
		if len(message) > registryMessageMax {
			message = append(message[:registryMessageMax], '…')
		}
		text += ": " + string(message)
	}
	switch {
	case refused.StatusCode == http.StatusNotFound && refused.ErrorCode == codeNoSchema:
		return fmt.Errorf("%w: %s", kafkasource.ErrNoSchema, text)
	case refused.StatusCode == http.StatusNotFound:
		text += "; " + isItRegistry
	case refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden:
		text += "; look at username and password of source.kafka.schema_registry"
	}
	return errors.New(text)
}

// kafkaTopics are the topics to be read.
func kafkaTopics(k config.Kafka, tables []database.Name) (topics []string, pattern bool) {
	switch {
	case k.TopicsPattern != "":
		return []string{k.TopicsPattern}, true
	case len(k.Topics) > 0:
		return k.Topics, false
	}
	for _, table := range tables {
		if topic := topicName(k.TopicPrefix, table); !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
	}
	return topics, false
}

// topicName is what Debezium calls the topic of a table: what Kafka does not allow
// in a name becomes an underscore.
func topicName(prefix string, table database.Name) string {
	return prefix + "." + sanitized(table.Schema) + "." + sanitized(table.Table)
}

func sanitized(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 128 && (r == '.' || r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '_'
	}, name)
}

// unrelatedMax bounds how many tables are known to be no partition of an entry's.
const unrelatedMax = 16384

// describedTables is what the catalog says of the entries' tables, for whoever
// reads their rows from records.
type describedTables struct {
	decoder     *debezium.Decoder
	wanted      map[database.Name]bool
	partitioned bool // some of them
	// look asks the catalog for a table that may be a partition made since; nil:
	// there is none to ask, or what is known was asked just now.
	look func(context.Context, database.Name) (database.Table, error)
	// follow, if not nil, is told the partitions that there are: their changes may
	// come under their names, in topics of their own.
	follow func([]database.Name)

	mu  sync.Mutex
	now map[database.Name]*debezium.Table // the partitions, too
	// roots has, for each partition, its table; unrelated are tables that were looked
	// up since then and are none.
	roots     map[database.Name]database.Name
	unrelated map[database.Name]bool
}

func (d *describedTables) isWanted(schema, table string) bool {
	return d.wanted[database.Name{Schema: schema, Table: table}]
}

func (d *describedTables) table(schema, table string) *debezium.Table {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now[database.Name{Schema: schema, Table: table}]
}

// root names the table that has a partition of that name. One that nobody knows is
// looked up before its changes are passed over: it may be younger than the last look
// at the catalog.
func (d *describedTables) root(ctx context.Context, schema, table string) (debezium.TableName, bool, error) {
	name := database.Name{Schema: schema, Table: table}
	d.mu.Lock()
	root, ok := d.roots[name]
	known := ok || d.unrelated[name]
	d.mu.Unlock()
	if known || !d.partitioned || d.look == nil {
		return debezium.TableName{Schema: root.Schema, Table: root.Table}, ok, nil
	}
	t, err := d.look(ctx, name)
	if err != nil {
		return debezium.TableName{}, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.Root == nil || !d.wanted[*t.Root] {
		if len(d.unrelated) >= unrelatedMax {
			clear(d.unrelated)
		}
		d.unrelated[name] = true
		return debezium.TableName{}, false, nil
	}
	d.addPartition(*t.Root, &t.Relation)
	return debezium.TableName{Schema: t.Root.Schema, Table: t.Root.Table}, true, nil
}

// addPartition describes a partition: it has the columns of its table, and a replica
// identity of its own.
func (d *describedTables) addPartition(root database.Name, r *database.Relation) {
	described := debezium.Table{}
	if t := d.now[root]; t != nil {
		described = *t
	}
	identify(&described, r.Replica)
	d.now[r.Name], d.roots[r.Name] = &described, root
}

// partitionsOf are those of all tables.
func partitionsOf(tables []database.Table) (names []database.Name) {
	for i := range tables {
		for j := range tables[i].Below {
			if tables[i].Below[j].Partition {
				names = append(names, tables[i].Below[j].Name)
			}
		}
	}
	return names
}

func identify(t *debezium.Table, r database.Replica) {
	t.Key, t.Full = r.Columns()
}

func (d *describedTables) describe(tables []database.Table, shapes plan.Shapes) {
	d.mu.Lock()
	d.now, d.roots, d.unrelated = map[database.Name]*debezium.Table{}, map[database.Name]database.Name{}, map[database.Name]bool{}
	for i := range tables {
		t := &tables[i]
		if t.OID == 0 {
			continue
		}
		described := &debezium.Table{Shape: shapes[i]}
		identify(described, t.Replica)
		for _, column := range t.Columns {
			if column.Defaulted {
				described.Defaulted = append(described.Defaulted, column.Name)
			}
		}
		d.now[t.Name] = described
		for j := range t.Below {
			if t.Below[j].Partition { // what inherits else is a table of its own
				d.addPartition(t.Name, &t.Below[j])
			}
		}
	}
	d.mu.Unlock()
	d.decoder.Forget()
	if d.follow != nil {
		d.follow(partitionsOf(tables))
	}
}
