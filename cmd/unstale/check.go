package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/redissink"
)

// checkTimeout bounds the look at one server.
const checkTimeout = 15 * time.Second

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find what is wrong, and the statement that mends it",
		Long: `Check looks at the configuration, the database and Redis, changes nothing, and
prints everything that stands in the way with the exact statement that mends it.
It is silent when there is nothing to say.

Exit code 1: something is wrong. Advice alone is exit code 0.`,
		Example: `  unstale check
  unstale check --json
  unstale check --print-config      the configuration in effect, defaults filled in, secrets hidden`,
		Args: noArgs,
	}
	printConfig := cmd.Flags().Bool("print-config", false, "print the configuration in effect and do nothing else")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(cmd)
		wrong, isProblems := errors.AsType[config.Problems](err)
		if err != nil && (!isProblems || *printConfig) {
			return err
		}
		if *printConfig {
			_, err := io.WriteString(cmd.OutOrStdout(), c.Effective())
			return err
		}
		var found findings
		found.addConfig(wrong.Err())
		found.servers(cmd.Context(), c, wrong)
		if err := found.print(cmd.OutOrStdout(), *asJSON); err != nil {
			return err
		}
		if found.wrong() {
			return errSaid
		}
		return nil
	}
	return cmd
}

// A finding is one thing that check has to say.
type finding struct {
	Severity database.Severity `json:"severity"`
	Subject  string            `json:"subject"`
	Text     string            `json:"text"`
	Mend     []string          `json:"mend,omitempty"`
	Then     string            `json:"then,omitempty"`

	printed string
}

type findings []finding

func (fs *findings) addConfig(err error) {
	problems, ok := errors.AsType[config.Problems](err)
	if !ok {
		if err != nil {
			*fs = append(*fs, finding{Severity: database.Wrong, Subject: "configuration", Text: err.Error(), printed: "error: " + err.Error()})
		}
		return
	}
	for _, p := range problems {
		*fs = append(*fs, finding{Severity: database.Wrong, Subject: fmt.Sprintf("%s:%d:%d %s", p.File, p.Line, p.Column, p.Path), Text: p.Text, Mend: []string{p.Mend}, printed: p.String()})
	}
}

// servers looks at what the configuration says soundly: what is wrong in one
// place hides nothing that is wrong in another.
func (fs *findings) servers(ctx context.Context, c *config.Config, wrong config.Problems) {
	about := func(path string) bool {
		return slices.ContainsFunc(wrong, func(p config.Problem) bool {
			return p.Path == "" || p.Path == path || strings.HasPrefix(p.Path, path+".")
		})
	}
	sound := *c
	sound.Entries = slices.DeleteFunc(slices.Clone(c.Entries), func(e config.Entry) bool {
		return about(e.Path("table")) || about(e.Path("key")) || e.Key == "" ||
			about(e.Path("query")) || about(e.Path("depends_on")) || e.Table == "" && e.Query == "" && e.DependsOn == nil
	})
	switch {
	case about("database") || about("source"):
		_, templates := parseTemplates(&sound)
		fs.addConfig(templates.Err())
	case c.Database.URL == "":
		_, templates := templatesAlone(&sound)
		fs.addConfig(templates.Err())
		for _, text := range unpromised {
			fs.addProblem(database.Problem{Severity: database.Advice, Subject: "database", Text: text, Then: "give `database` the address of the primary"})
		}
	default:
		fs.database(ctx, &sound)
	}
	fs.bareKeys(&sound)
	if c.Source.FromKafka && !about("source") {
		fs.kafka(ctx, &sound)
		if c.Source.Kafka.Connect.URL == "" {
			fs.unknownConnector(ctx, &sound)
		}
	}
	if c.Source.Kafka.Connect.URL != "" && !about("source") {
		fs.connector(ctx, &sound)
	}
	if !about("redis") {
		fs.redis(ctx, &sound)
	}
}

// bareKeys advises against keys of which nothing says whose they are.
func (fs *findings) bareKeys(c *config.Config) {
	for _, e := range c.Entries {
		t, err := guard.ParseTemplate(e.Key)
		if err != nil || len(t.Columns()) == 0 || len(t.AppendLiteral(nil, 0)) > 0 || len(t.AppendLiteral(nil, 1)) > 0 {
			continue
		}
		fs.addProblem(database.Problem{
			Severity: database.Advice, Subject: e.Path("key"),
			Text: fmt.Sprintf("every key of this Redis that could be a value of %s is one of this entry: a sweep drops it, whoever has written it; where the column is a text, or the entry is taken out, that is every key", t.Columns()[0]),
			Then: fmt.Sprintf("begin the key with a text that nobody else uses, such as %s:%s, or give the entry a database of Redis of its own", e.Name, e.Key),
		})
	}
}

// says reports whether a statement that mends something is said.
func (fs *findings) says(is func(mend string) bool) bool {
	return slices.ContainsFunc(*fs, func(f finding) bool { return slices.ContainsFunc(f.Mend, is) })
}

func (fs *findings) add(subject, text, mend string) {
	f := finding{Severity: database.Wrong, Subject: subject, Text: text, printed: fmt.Sprintf("error: %s: %s", subject, text)}
	if mend != "" {
		f.Mend = []string{mend}
		f.printed += "\n    " + mend
	}
	*fs = append(*fs, f)
}

func (fs *findings) addProblem(p database.Problem) {
	*fs = append(*fs, finding{Severity: p.Severity, Subject: p.Subject, Text: p.Text, Mend: p.Mend, Then: p.Then, printed: p.String()})
}

func (fs *findings) database(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	options, err := databaseConfig(c)
	if err != nil {
		fs.addConfig(err)
		return
	}
	conn, err := pgx.ConnectConfig(ctx, options)
	if err != nil {
		_, templates := parseTemplates(c)
		fs.addConfig(templates.Err())
		fs.add("database", err.Error(), "")
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	x, err := examine(ctx, c, conn)
	fs.addConfig(err)
	if x == nil {
		return
	}
	fs.addConfig(x.asides.Err())
	problems := x.problems
	if needs, known := connectorReads(c, x.needs); known {
		if problems, err = database.Diagnose(ctx, conn, needs); err != nil {
			fs.add("database", err.Error(), "")
		}
	}
	for _, p := range problems {
		if p.Entry == "" { // the others are the configuration's
			fs.addProblem(p)
		}
	}
	unallowed, unlisted, err := x.unallowed(ctx, c, conn)
	if err != nil {
		fs.add("database", err.Error(), "")
	}
	granted := fs.says(func(mend string) bool { return strings.HasPrefix(mend, "GRANT SELECT") })
	for _, p := range unallowed {
		known := len(p.Mend) > 0
		p.Mend = slices.DeleteFunc(p.Mend, func(mend string) bool { return fs.says(func(said string) bool { return said == mend }) })
		if len(p.Mend) > 0 || !known && !granted { // else the right is said above
			fs.addProblem(p)
		}
	}
	fs.addConfig(unlisted.Err())
	ways, err := x.ways(ctx, conn)
	if err != nil {
		fs.add("database", err.Error(), "")
	}
	for _, p := range slices.Concat(unindexed(x, ways), lingering(x)) {
		if !fs.says(func(mend string) bool { return slices.Contains(p.Mend, mend) }) { // once is enough
			fs.addProblem(p)
		}
	}
}

// connectorReads are needs that judge the connector's way of reading the log as
// well, where the configuration has it.
func connectorReads(c *config.Config, needs database.Needs) (database.Needs, bool) {
	k := c.Source.Kafka.Connect
	if k.URL == "" {
		return needs, false
	}
	needs.Reader, needs.Slot, needs.Publication = "connector "+k.Connector, k.Slot, k.Publication
	needs.ApplicationName = debeziumName
	// Whoever reads the stream is judged.
	if reader, err := pgconn.ParseConfig(c.ConnectorConnString()); err == nil {
		needs.Role = reader.User
	}
	return needs, true
}

// debeziumName is the application_name of Debezium's stream.
const debeziumName = "Debezium Streaming"

// testedSince is the version of Debezium's connector from which on it is known
// what it sends.
const testedSince = 3

func (fs *findings) connector(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	client, err := connectClient(c)
	if err != nil {
		fs.addConfig(err)
		return
	}
	defer client.Close()
	k := &kafkaConnect{config: c, client: client, name: c.Source.Kafka.Connect.Connector}
	plugins, err := client.Plugins(ctx)
	if err != nil {
		fs.add("kafka connect", err.Error(), "")
		return
	}
	fs.plugins(plugins, c)

	subject := "connector " + k.name
	have, err := client.Config(ctx, k.name)
	if errors.Is(err, connect.ErrNotFound) {
		mend := "unstale connector apply, or write the name of yours into source.kafka.connect.connector"
		if others, err := k.prefixed(ctx, c.Source.Kafka.TopicPrefix); err == nil && len(others) > 0 {
			mend = fmt.Sprintf("write connector: %s below source.kafka.connect, with its slot and publication: that writes topics with the prefix %s", others[0], c.Source.Kafka.TopicPrefix)
		}
		fs.add(subject, "it does not exist: nothing is sent", mend)
		return
	}
	var status connect.Status
	if err == nil {
		status, err = client.Status(ctx, k.name)
	}
	if err != nil {
		fs.add(subject, err.Error(), "")
		return
	}
	fs.state(subject, status)

	// Where the database cannot be asked, which is said elsewhere, the tables
	// whose schema it would know are left out.
	names, err := tableNames(ctx, c)
	need, wrong := connectorNeed(c, distinctOf(names), plugins)
	if wrong != nil {
		fs.add(subject, wrong.Error(), "")
		return
	}
	if err != nil {
		need.Tables = nil
	}
	view := viewCatalog(ctx, c, names)
	view.tell(need)
	if connect.Value(have, "slot.name") == need.Slot { // else that is said
		state := k.stateOf(status)
		k.locate(ctx, state)
		fs.slot(state)
	}
	if p := view.publication; p != nil && !p.Exists && status.Running() && connect.Value(have, "publication.name") == need.Publication {
		fs.missingPublication(need.Publication, connect.Value(have, "publication.autocreate.mode"))
	}
	for _, d := range worthSaying(need.Differences(have)) {
		if d.Key == "publication.name" && !d.Mendable() {
			continue // it is said of the publication
		}
		fs.difference(subject, d)
	}
	if err == nil {
		fs.recordKeys(c, names, view.tables, have)
		fs.unbrought(c, names, view, have)
	}
}

// plugins looks for what the workers need to have.
func (fs *findings) plugins(plugins []connect.Plugin, c *config.Config) {
	find := func(class string) (connect.Plugin, bool) {
		i := slices.IndexFunc(plugins, func(p connect.Plugin) bool { return p.Class == class })
		if i < 0 {
			return connect.Plugin{}, false
		}
		return plugins[i], true
	}
	const install = "put its jars into a folder of their own below plugin.path of the workers, and restart them"
	debezium, has := find(connect.Class)
	if !has {
		fs.add("kafka connect", "its workers do not have Debezium's connector for PostgreSQL", install)
	} else if major, _, _ := strings.Cut(debezium.Version, "."); major != "" {
		if n, err := strconv.Atoi(major); err == nil && n < testedSince {
			fs.addProblem(database.Problem{Severity: database.Advice, Subject: "kafka connect",
				Text: fmt.Sprintf("its connector for PostgreSQL is Debezium %s: what is sent was tried with version %d and later", debezium.Version, testedSince)})
		}
	}
	_, confluent := find(connect.ConfluentAvro)
	_, apicurio := find(connect.ApicurioAvro)
	if c.Source.Kafka.SchemaRegistry.URL != "" && !confluent && !apicurio {
		fs.add("kafka connect", "its workers have no converter for Avro, and source.kafka.schema_registry asks for one",
			install+"; or leave schema_registry out, and records are JSON")
	}
}

func (fs *findings) state(subject string, s connect.Status) {
	switch {
	case s.Failed():
		fs.add(subject, "it has failed, and nothing is sent until somebody restarts it: "+s.Reason(), "unstale connector restart, when that is mended")
	case s.Connector.State == connect.Paused || s.Connector.State == connect.Stopped:
		fs.add(subject, fmt.Sprintf("it is %s: nothing is sent", strings.ToLower(string(s.Connector.State))), "unstale connector resume")
	case len(s.Tasks) == 0:
		fs.addProblem(database.Problem{Severity: database.Advice, Subject: subject, Text: "it has no task: nothing is sent yet",
			Then: "where that lasts, the log of Kafka Connect says why"})
	}
}

// worthSaying leaves out that another role has another password.
func worthSaying(differences []connect.Difference) []connect.Difference {
	other := slices.ContainsFunc(differences, func(d connect.Difference) bool { return d.Kept && d.Key == "database.user" })
	return slices.DeleteFunc(slices.Clone(differences), func(d connect.Difference) bool { return other && d.Kept && d.Key == "database.password" })
}

// slot says what only the slot and the connector together show: what is to be known
// of the slot alone the database's findings have.
func (fs *findings) slot(state *connectorState) {
	s := state.Slot
	switch {
	case s == nil || s.elsewhere || s.Text == "":
	case s.Wrong:
		fs.add("slot "+s.Name, s.Text, "")
	case state.Running && !s.Active:
		fs.addProblem(database.Problem{Severity: database.Advice, Subject: "slot " + s.Name, Text: s.Text})
	}
}

// missingPublication says that a stream is about to break. One that the connector
// would not make anew is said of its setting.
func (fs *findings) missingPublication(name, mode string) {
	if mode == "disabled" {
		return
	}
	fs.add("publication "+name, "it does not exist, and the connector runs: its stream breaks with the next change",
		"unstale connector restart --all, which makes it anew; if the task then fails because changes were written while there was none, drop the slot, and the connector begins anew")
}

func (fs *findings) difference(subject string, d connect.Difference) {
	p := database.Problem{Severity: database.Advice, Subject: subject, Text: d.String(), Then: d.Then}
	if d.Wrong {
		p.Severity = database.Wrong
	}
	if d.Mendable() {
		p.Mend = []string{d.Key + "=" + d.Want}
		p.Then = "unstale connector apply sets it"
		switch {
		case d.Moves:
			p.Then = "unstale connector apply --force sets it, and makes another connector of it, which begins anew"
		case d.Kept:
			p.Then = "unstale connector apply leaves the login as it is; --force sets it"
		}
	}
	fs.addProblem(p)
}

func (fs *findings) redis(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	client, err := redisClient(c.Redis)
	if err != nil {
		fs.addConfig(err)
		return
	}
	defer client.Close()
	problems, err := redissink.Diagnose(ctx, client, redisKeys(c)...)
	if err != nil {
		fs.add("redis", err.Error(), "")
	}
	for _, p := range problems {
		fs.add("redis", p.Text, p.Mend)
	}
	if len(problems) > 0 || err != nil || !slices.ContainsFunc(c.Entries, config.Entry.Sets) {
		return
	}
	policy, err := redissink.Evicts(ctx, client)
	if err != nil {
		fs.add("redis", err.Error(), "")
	}
	if policy != "" {
		p := database.Problem{
			Severity: database.Advice, Subject: "redis",
			Text: fmt.Sprintf("its maxmemory-policy is %s: it may evict what keeps a value from going back in time, so that a key that is written from changes can, for as long as the stream is behind, show an older row after a newer one", policy),
			Mend: []string{"CONFIG SET maxmemory-policy noeviction"},
			Then: "a full Redis then drops what it cannot write; or give it so much memory that it evicts nothing",
		}
		fs.addProblem(p)
	}
}

func (fs findings) wrong() bool {
	for _, f := range fs {
		if f.Severity == database.Wrong {
			return true
		}
	}
	return false
}

func (fs findings) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, map[string]any{"ok": !fs.wrong(), "findings": append(findings{}, fs...)})
	}
	for i, f := range fs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if _, err := fmt.Fprintln(w, f.printed); err != nil {
			return err
		}
	}
	return nil
}
