package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
)

const (
	// settleMax is how long a connector may take to come to the state that was
	// asked for; settlePolls states in a row, settlePoll apart, have to agree:
	// just after a request Connect still tells the state before.
	settleMax   = 30 * time.Second
	settlePoll  = 400 * time.Millisecond
	settlePolls = 4
	// failedPolls is the same for a failure: what has failed before stays so until
	// its new task has begun, which takes a worker that has much to do a while.
	failedPolls = 20
	// againPolls is the same for what runs after a restart: a task that fails again
	// has run for a while, until it has looked at the database.
	againPolls = 15
)

func newConnector() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connector",
		Short: "Debezium's connector on Kafka Connect, made of the same configuration",
		Long: `Connector makes the connector that source.kafka needs, and looks after it. What it
is told follows from the configuration: the database, the tables of the entries,
the topics, the registry. source.kafka.connect says where Kafka Connect is.`,
		Example: `  unstale connector show            what Connect is told, and why
  unstale connector apply           create it, or mend what differs
  unstale connector status          does it run, and how far is it`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(newConnectorShow(), newConnectorApply(), newConnectorStatus(), newConnectorRestart(),
		newConnectorPause(), newConnectorResume(), newConnectorDelete())
	return cmd
}

func newConnectorShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what Connect is told, and why",
		Long: `Show prints the configuration of the connector with the reason for each key, and
with --json as it is sent (PUT /connectors/NAME/config). It changes nothing, and
Connect need not be there. Passwords are hidden unless --reveal is given.`,
		Example: `  unstale connector show
  unstale connector show --json --reveal > connector.json`,
		Args: noArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	reveal := cmd.Flags().Bool("reveal", false, "print the passwords, too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadKafkaConfig(cmd)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		var plugins []connect.Plugin
		if url := c.Source.Kafka.Connect.URL; url != "" {
			client, err := connectClient(c)
			if err != nil {
				return err
			}
			defer client.Close()
			// Only the converter depends on what is there.
			if plugins, err = client.Plugins(ctx); err != nil && c.Source.Kafka.SchemaRegistry.URL != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "%v\n  the converter is guessed from the registry's URL\n\n", err)
			}
		}
		names, err := tableNames(ctx, c)
		if err != nil {
			return err
		}
		need, err := connectorNeed(c, distinctOf(names), plugins)
		if err == nil {
			err = need.Complete()
		}
		if err != nil {
			return err
		}
		return showSettings(cmd.OutOrStdout(), need.Settings(), *asJSON, *reveal)
	}
	return cmd
}

func showSettings(w io.Writer, settings []connect.Setting, asJSON, reveal bool) error {
	text := func(s connect.Setting) string {
		if reveal {
			return s.Value
		}
		return s.Shown()
	}
	if asJSON {
		config := map[string]string{}
		for _, s := range settings {
			config[s.Key] = text(s)
		}
		return printJSON(w, config)
	}
	fmt.Fprintln(w, "{")
	for i, s := range settings {
		comma := ","
		if i == len(settings)-1 {
			comma = ""
		}
		if _, err := fmt.Fprintf(w, "  // %s\n  %s: %s%s\n", s.Why, quoteJSON(s.Key), quoteJSON(text(s)), comma); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "}")
	return err
}

// An applied is what apply has done.
type applied struct {
	Connector string               `json:"connector"`
	Created   bool                 `json:"created"`
	Changed   []connect.Difference `json:"changed"`
	// Left is what no value mends, or what would make another connector of it.
	Left []connect.Difference `json:"left"`
	// State is how it stands now; empty with --dry-run.
	State *connectorState `json:"state,omitempty"`
}

func newConnectorApply() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Create the connector, or mend what differs",
		Long: `Apply creates the connector if there is none. Of one that is there it sets what
loses, alters or delays changes, and says so; what else is in it stays. Applied
again it does nothing.

It does not give a connector another server, database, slot, publication or
prefix: that would make it another one, which begins anew. --force does. Nor does
it replace the login of one that is there, unless source.kafka.connect.database
says which, or --force is given.

Whoever else reads the connector's topics gets other records by some of what it
sets; it says which. It makes none whose prefix another connector has.

Exit code 1: the connector has failed, or something is left that a person has to
look at.`,
		Example: `  unstale connector apply --dry-run
  unstale connector apply`,
		Args: noArgs,
	}
	dryRun := cmd.Flags().Bool("dry-run", false, "only say what would be changed")
	force := cmd.Flags().Bool("force", false, "also what makes another connector of it, and its login")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = connectorCommand(func(ctx context.Context, cmd *cobra.Command, k *kafkaConnect) error {
		result, err := k.apply(ctx, *dryRun, *force)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), result)
		} else {
			printApplied(cmd.OutOrStdout(), result, *dryRun)
		}
		if err != nil {
			return err
		}
		if result.State != nil && result.State.Failed || slices.ContainsFunc(result.Left, func(d connect.Difference) bool { return d.Wrong || d.Moves }) {
			return errSaid
		}
		return nil
	})
	return cmd
}

func (k *kafkaConnect) apply(ctx context.Context, dryRun, force bool) (*applied, error) {
	plugins, err := k.client.Plugins(ctx)
	if err != nil {
		return nil, err
	}
	names, err := tableNames(ctx, k.config)
	if err != nil {
		return nil, err
	}
	need, err := connectorNeed(k.config, distinctOf(names), plugins)
	if err != nil {
		return nil, err
	}
	viewCatalog(ctx, k.config, names).tell(need)
	result := &applied{Connector: k.name, Changed: []connect.Difference{}, Left: []connect.Difference{}}
	var wanted map[string]string
	have, err := k.client.Config(ctx, k.name)
	switch {
	case errors.Is(err, connect.ErrNotFound):
		if err := need.Complete(); err != nil {
			return nil, err
		}
		if err := k.refusePrefix(ctx, need.TopicPrefix); err != nil {
			return nil, err
		}
		result.Created, wanted = true, need.Config()
		// The publication may be there already, and not as the connector would make it.
		result.Left = append(result.Left, need.Differences(wanted)...)
	case err != nil:
		return nil, err
	default:
		for _, d := range need.Differences(have) {
			if d.Mendable() && (force || !d.Moves && !d.Kept) {
				result.Changed = append(result.Changed, d)
			} else {
				result.Left = append(result.Left, d)
			}
		}
		wanted = connect.Mended(have, result.Changed)
		if wanted["topic.prefix"] != have["topic.prefix"] {
			if err := k.refusePrefix(ctx, need.TopicPrefix); err != nil {
				return nil, err
			}
		}
	}
	if dryRun {
		return result, nil
	}
	if result.Created || len(result.Changed) > 0 {
		if err := k.client.PutConfig(ctx, k.name, wanted); err != nil {
			return nil, fmt.Errorf("%w\n  what Connect says of the database is how its workers reach it: source.kafka.connect.database, where that is otherwise than here", err)
		}
	}
	result.State, err = k.settle(ctx, settlePolls, func(s connect.Status) bool { return s.Running() || s.Failed() || s.Connector.State == connect.Paused })
	return result, err
}

// refusePrefix returns an error where another connector writes topics with the
// prefix: two would write every change twice, each in an order of its own.
func (k *kafkaConnect) refusePrefix(ctx context.Context, prefix string) error {
	others, err := k.prefixed(ctx, prefix)
	if err != nil || len(others) == 0 {
		return err
	}
	return fmt.Errorf("connector %s of %s writes topics with the prefix %s already: write connector: %s below source.kafka.connect, with its slot and publication, to use that; or give Unstale a topic_prefix of its own",
		others[0], k.client.URL(), prefix, others[0])
}

// prefixed are the other connectors whose topics have the prefix.
func (k *kafkaConnect) prefixed(ctx context.Context, prefix string) (names []string, err error) {
	configs, err := k.client.Configs(ctx)
	if err != nil {
		return nil, err
	}
	for name, have := range configs {
		if name != k.name && prefix != "" && have["connector.class"] == connect.Class && have["topic.prefix"] == prefix {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func printApplied(w io.Writer, r *applied, dryRun bool) {
	would := ""
	if dryRun {
		would = "would be "
	}
	switch {
	case r.Created:
		fmt.Fprintf(w, "connector %s: %screated\n", r.Connector, would)
	case len(r.Changed) == 0:
		fmt.Fprintf(w, "connector %s: nothing to change\n", r.Connector)
	default:
		fmt.Fprintf(w, "connector %s: %schanged\n", r.Connector, would)
	}
	for _, d := range r.Changed {
		fmt.Fprintf(w, "  %s=%s\n      %s\n", d.Key, d.Want, d)
	}
	var sent []string
	for _, d := range r.Changed {
		if d.Sent && !r.Created {
			sent = append(sent, d.Key)
		}
	}
	if len(sent) > 0 {
		fmt.Fprintf(w, "\nwhoever else reads its topics %sgets other records: %s\n", would, strings.Join(sent, ", "))
		fmt.Fprintln(w, "    where that must not be, make one for Unstale alone: give source.kafka.connect a connector, slot and publication of its own, and source.kafka another topic_prefix")
	}
	for _, d := range worthSaying(r.Left) {
		fmt.Fprintf(w, "\nleft: %s\n", d)
		if d.Kept {
			fmt.Fprintf(w, "    the connector keeps its own login: --force gives it ours\n")
		}
		if d.Moves {
			fmt.Fprintf(w, "    with %s=%s it would be another connector, which begins anew: --force does that\n", d.Key, d.Want)
		}
		if d.Then != "" {
			fmt.Fprintf(w, "    %s\n", d.Then)
		}
	}
	if r.State != nil {
		if len(r.Left) > 0 {
			fmt.Fprintln(w)
		}
		r.State.print(w)
	}
}

func newConnectorStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the connector runs, and how far it is",
		Long: `Status prints the state of the connector and of its task, why it has failed, the
position that Connect has committed and, where the configuration names the
database, how far its slot is behind.

Exit code 1: it has failed, is paused or stopped, or does not exist; or changes
are missing in its slot, or will be.`,
		Example: `  unstale connector status
  unstale connector status --json`,
		Args: noArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = connectorCommand(func(ctx context.Context, cmd *cobra.Command, k *kafkaConnect) error {
		status, err := k.client.Status(ctx, k.name)
		if err != nil {
			return k.explain(err)
		}
		state := k.stateOf(status)
		k.locate(ctx, state)
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), state)
		} else {
			state.print(cmd.OutOrStdout())
		}
		if err == nil && (state.Failed || state.halted() || state.Slot != nil && state.Slot.Wrong) {
			return errSaid
		}
		return err
	})
	return cmd
}

func newConnectorRestart() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Start again what has failed",
		Long: `Restart starts again what has failed of the connector, and waits until it runs or
has failed anew. Its position is kept: nothing is lost.`,
		Example: `  unstale connector restart
  unstale connector restart --all   also what runs`,
		Args: noArgs,
	}
	all := cmd.Flags().Bool("all", false, "also what has not failed")
	cmd.RunE = connectorCommand(func(ctx context.Context, cmd *cobra.Command, k *kafkaConnect) error {
		status, err := k.client.Status(ctx, k.name)
		if err != nil {
			return k.explain(err)
		}
		switch {
		case *all:
			err = k.client.Restart(ctx, k.name)
		case status.Failed():
			err = k.client.RestartFailed(ctx, k.name)
		default:
			fmt.Fprintln(cmd.OutOrStdout(), "nothing has failed; --all starts it again all the same")
			k.stateOf(status).print(cmd.OutOrStdout())
			return nil
		}
		if err != nil {
			return err
		}
		return k.printSettled(ctx, cmd.OutOrStdout(), againPolls, func(s connect.Status) bool { return s.Running() || s.Failed() })
	})
	return cmd
}

func newConnectorPause() *cobra.Command {
	return &cobra.Command{
		Use:   "pause",
		Short: "Let the connector hold",
		Long: `Pause lets the connector send nothing until it is resumed. Meanwhile the cache is
as old as its last change, and the server keeps its log for the slot.`,
		Args: noArgs,
		RunE: connectorCommand(func(ctx context.Context, cmd *cobra.Command, k *kafkaConnect) error {
			if err := k.client.Pause(ctx, k.name); err != nil {
				return k.explain(err)
			}
			return k.printSettled(ctx, cmd.OutOrStdout(), settlePolls, func(s connect.Status) bool { return s.Connector.State == connect.Paused && !s.Running() })
		}),
	}
}

func newConnectorResume() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "Let the connector go on",
		Args:  noArgs,
		RunE: connectorCommand(func(ctx context.Context, cmd *cobra.Command, k *kafkaConnect) error {
			if err := k.client.Resume(ctx, k.name); err != nil {
				return k.explain(err)
			}
			return k.printSettled(ctx, cmd.OutOrStdout(), settlePolls, func(s connect.Status) bool { return s.Running() || s.Failed() })
		}),
	}
}

func newConnectorDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete",
		Short: "Delete the connector, and say what it leaves",
		Long: `Delete takes the connector away. It leaves its slot, for which the server keeps its
log, its publication, its topics and its position, and says what removes them.`,
		Args: noArgs,
		RunE: connectorCommand(func(ctx context.Context, cmd *cobra.Command, k *kafkaConnect) error {
			have, err := k.client.Config(ctx, k.name)
			if err != nil {
				return k.explain(err)
			}
			topics, err := k.client.Topics(ctx, k.name)
			if err != nil {
				return err
			}
			if err := k.client.Delete(ctx, k.name); err != nil {
				return err
			}
			if err := k.gone(ctx); err != nil {
				return err
			}
			printLeft(cmd.OutOrStdout(), k, have, topics)
			return nil
		}),
	}
}

func printLeft(w io.Writer, k *kafkaConnect, have map[string]string, topics []string) {
	slot, publication := connect.Value(have, "slot.name"), connect.Value(have, "publication.name")
	fmt.Fprintf(w, "connector %s: deleted. It leaves\n", k.name)
	fmt.Fprintf(w, "  slot %s, for which the server keeps its log until the disk is full:\n    SELECT pg_drop_replication_slot('%s');\n", slot, slot)
	fmt.Fprintf(w, "  publication %s:\n    DROP PUBLICATION %s;\n", publication, database.Name{Table: publication}.SQL())
	fmt.Fprintf(w, "  its position, where a connector goes on that is made under this name\n")
	if len(topics) > 0 {
		slices.Sort(topics)
		fmt.Fprintf(w, "  topics %s:\n    kafka-topics.sh --bootstrap-server %s --delete --topic '%s'\n", strings.Join(topics, ", "),
			k.config.Source.Kafka.Brokers[0], strings.ReplaceAll(strings.Join(topics, "|"), ".", `\.`))
	}
}

// kafkaConnect is what each command of the connector works with.
type kafkaConnect struct {
	config *config.Config
	client *connect.Client
	name   string
}

// connectorCommand gives a command the client that it works with.
func connectorCommand(run func(context.Context, *cobra.Command, *kafkaConnect) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		c, err := loadKafkaConfig(cmd)
		if err != nil {
			return err
		}
		if c.Source.Kafka.Connect.URL == "" {
			return fmt.Errorf("%s does not say where Kafka Connect is: write connect: http://host:8083 below source.kafka", c.File())
		}
		client, err := connectClient(c)
		if err != nil {
			return err
		}
		defer client.Close()
		return run(cmd.Context(), cmd, &kafkaConnect{config: c, client: client, name: c.Source.Kafka.Connect.Connector})
	}
}

// loadKafkaConfig reads a configuration whose changes come from Kafka.
func loadKafkaConfig(cmd *cobra.Command) (*config.Config, error) {
	c, err := loadConfig(cmd)
	if err == nil && !c.Source.FromKafka {
		err = fmt.Errorf("%s reads the database's log itself: a connector is for source.kafka", c.File())
	}
	return c, err
}

func connectClient(c *config.Config) (*connect.Client, error) {
	e := c.Source.Kafka.Connect.Endpoint
	secure, err := e.TLSConfig()
	if err != nil {
		return nil, fmt.Errorf("source.kafka.connect: %w", err)
	}
	user, password := e.Login()
	return connect.NewClient(e.Address(), connect.Options{Username: user, Password: password, TLS: secure})
}

// explain says what to do where there is no connector.
func (k *kafkaConnect) explain(err error) error {
	if errors.Is(err, connect.ErrNotFound) {
		return fmt.Errorf("there is no connector %s on %s: unstale connector apply makes it, or write the name of yours into source.kafka.connect.connector", k.name, k.client.URL())
	}
	return err
}

// distinctOf are the tables, each once.
func distinctOf(names []database.Name) (tables []connect.Table) {
	for _, n := range names {
		if t := (connect.Table{Schema: n.Schema, Name: n.Table}); !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
	}
	return tables
}

// tableNames are the tables of the entries, in their order: of a query its first, and
// behind those of all entries its others. One without a schema is what the database takes
// it for; where there is none to ask, one of public.
func tableNames(ctx context.Context, c *config.Config) ([]database.Name, error) {
	names := make([]database.Name, len(c.Entries))
	for i, e := range c.Entries {
		names[i] = database.Name{Schema: e.Schema, Table: e.Table}
		if e.Schema == "" && c.Database.URL == "" {
			names[i].Schema = "public"
		}
	}
	if slices.ContainsFunc(names, func(n database.Name) bool { return n.Schema == "" }) {
		return resolve(ctx, c, names)
	}
	return names, nil
}

// resolve finds the schemas of the tables, and the tables of the queries.
func resolve(ctx context.Context, c *config.Config, names []database.Name) ([]database.Name, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := connectDatabase(ctx, c)
	if err != nil {
		return names, fmt.Errorf("database: %w\n  only the database knows the schema of a table that has none in the configuration: write table: schema.table", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	templates, problems := parseTemplates(c)
	if len(problems) > 0 {
		return names, problems.Err()
	}
	queries, problems, err := derive(ctx, c, conn, templates)
	if err == nil {
		err = problems.Err()
	}
	if err != nil {
		return names, err
	}
	for i := range queries {
		for j, d := range queries[i].dependencies {
			if name := (database.Name{Schema: d.Schema, Table: d.Table}); j == 0 {
				names[i] = name
			} else {
				names = append(names, name)
			}
		}
	}
	tables, err := database.Tables(ctx, conn, names)
	if err != nil {
		return names, err
	}
	for i, t := range tables {
		if t.OID == 0 {
			return names, config.Problems{c.Problem(c.Entries[i].Path("table"), "there is no such table", "unstale check says more")}.Err()
		}
		names[i] = t.Name
	}
	return names, nil
}

func connectDatabase(ctx context.Context, c *config.Config) (*pgx.Conn, error) {
	options, err := databaseConfig(c)
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, options)
}

// connectorNeed is what the configuration asks of the connector.
func connectorNeed(c *config.Config, tables []connect.Table, plugins []connect.Plugin) (*connect.Need, error) {
	k := c.Source.Kafka
	need := &connect.Need{
		Slot: k.Connect.Slot, Publication: k.Connect.Publication,
		TopicPrefix: k.TopicPrefix, Tables: tables, Placeholder: k.Placeholder,
	}
	if text := c.ConnectorConnString(); text != "" {
		parsed, err := pgconn.ParseConfig(text)
		if err != nil {
			return nil, err
		}
		if parsed.Database == "" {
			parsed.Database = parsed.User // as the server does
		}
		need.Database = connect.Database{
			Host: parsed.Host, Port: parsed.Port, User: parsed.User, Password: parsed.Password, Name: parsed.Database,
			Assumed: k.Connect.Database == "",
			TLS:     c.ConnectorTLS("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"),
		}
		if strings.HasPrefix(parsed.Host, "/") {
			return nil, fmt.Errorf("the database is reached by a socket, %s, and Kafka Connect knows none: write source.kafka.connect.database with a host", parsed.Host)
		}
	}
	if registry := k.SchemaRegistry; registry.URL != "" {
		if k.Connect.SchemaRegistry != "" {
			registry.URL = k.Connect.SchemaRegistry
		}
		need.Registry = &connect.Registry{URL: registry.Address(), Converter: connect.Converter(plugins, string(registry.URL))}
		need.Registry.Username, need.Registry.Password = registry.Login()
	}
	return need, nil
}

// connectorState is what status prints.
type connectorState struct {
	Connector string          `json:"connector"`
	State     connect.State   `json:"state"`
	Worker    string          `json:"worker"`
	Running   bool            `json:"running"`
	Failed    bool            `json:"failed"`
	Reason    string          `json:"reason,omitempty"`
	Tasks     []connectorTask `json:"tasks"`
	// Position: all that was committed below it has been sent.
	Position string         `json:"position,omitempty"`
	Slot     *connectorSlot `json:"slot,omitempty"`
}

type connectorTask struct {
	ID     int           `json:"id"`
	State  connect.State `json:"state"`
	Worker string        `json:"worker"`
	Reason string        `json:"reason,omitempty"`
}

type connectorSlot struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Behind int64  `json:"behind_bytes"`
	// Text says what is to know of it; Wrong: changes are missing, or will be.
	Text  string `json:"text,omitempty"`
	Wrong bool   `json:"wrong"`

	elsewhere bool // check says it of the database
}

// halted reports that a person has stopped it, and nothing is sent.
func (s *connectorState) halted() bool {
	return s.State == connect.Paused || s.State == connect.Stopped
}

func (k *kafkaConnect) stateOf(s connect.Status) *connectorState {
	state := &connectorState{
		Connector: k.name, State: s.Connector.State, Worker: s.Connector.Worker,
		Running: s.Running(), Failed: s.Failed(), Reason: s.Connector.Reason(), Tasks: []connectorTask{},
	}
	for _, t := range s.Tasks {
		state.Tasks = append(state.Tasks, connectorTask{t.ID, t.State, t.Worker, t.Reason()})
	}
	return state
}

// locate finds out how far the connector is. That Connect or the database does
// not say it is no reason to say nothing.
func (k *kafkaConnect) locate(ctx context.Context, state *connectorState) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	// The slot is asked first: the connector tells it only what is committed.
	var slot database.SlotState
	if k.config.Database.URL != "" {
		state.Slot = &connectorSlot{Name: k.config.Source.Kafka.Connect.Slot}
		conn, err := connectDatabase(ctx, k.config)
		if err == nil {
			defer conn.Close(context.WithoutCancel(ctx))
			slot, err = database.Slot(ctx, conn, state.Slot.Name)
		}
		if err != nil {
			state.Slot.Text, state.Slot.elsewhere = err.Error(), true
		}
	}
	lsn := k.position(ctx)
	if lsn != 0 {
		state.Position = fmt.Sprintf("%X/%X", lsn>>32, uint32(lsn))
	}
	if state.Slot != nil && state.Slot.Text == "" {
		state.Slot.judge(slot, lsn, state)
	}
}

// position is how far the connector is, or zero where nobody says it. Connect
// keeps a position for each topic.prefix that the connector ever had, and tells
// them in no order.
func (k *kafkaConnect) position(ctx context.Context) uint64 {
	have, err := k.client.Config(ctx, k.name)
	if err != nil {
		return 0
	}
	offsets, err := k.client.Offsets(ctx, k.name)
	if err != nil {
		return 0
	}
	for _, o := range offsets {
		if o.Prefix == have["topic.prefix"] {
			return o.LSN
		}
	}
	return 0
}

func (s *connectorSlot) judge(slot database.SlotState, position uint64, state *connectorState) {
	s.Active, s.Behind = slot.Active, slot.Behind
	switch {
	case !slot.Exists && state.Running:
		s.Wrong = true
		s.Text = "it does not exist: if the connector has another, write it into source.kafka.connect.slot"
	case !slot.Exists && state.Failed:
		s.Wrong = true
		s.Text = "it does not exist: unstale connector apply lets the connector begin anew where its slot is lost (snapshot.mode=when_needed)"
	case !slot.Exists && position != 0:
		s.Wrong = true
		s.Text = "it does not exist any more, though the connector has a position: what has changed since is not sent; with snapshot.mode=when_needed, which unstale connector apply sets, it begins anew when it starts"
	case !slot.Exists:
		s.Text = "it does not exist yet"
	case !slot.Usable:
		s.Wrong, s.elsewhere = true, true
		s.Text = fmt.Sprintf("the server has thrown away log that it needs, and the connector waits for that: SELECT pg_drop_replication_slot('%s'); then it begins anew", s.Name)
	case !slot.Active && state.Running:
		s.Text = "nobody reads it: the connector copies the rows that are there, or tries to reach the database again (its log says which)"
	case position != 0 && slot.Confirmed > position:
		s.Wrong = true
		s.Text = fmt.Sprintf("it is ahead of the connector's position, at %X/%X: what lies between was not sent, unless it was somebody else's", slot.Confirmed>>32, uint32(slot.Confirmed))
	}
}

func (s *connectorState) print(w io.Writer) {
	line := func(name, format string, values ...any) {
		fmt.Fprintf(w, "%-10s "+format+"\n", append([]any{name}, values...)...)
	}
	line("connector", "%s, %s", s.Connector, located(s.State, s.Worker, s.Reason))
	for _, t := range s.Tasks {
		line("task", "%s", located(t.State, t.Worker, t.Reason))
	}
	if len(s.Tasks) == 0 && s.State == connect.Running {
		line("task", "none yet")
	}
	if s.Position != "" {
		line("position", "%s", s.Position)
	}
	if s.Slot != nil {
		text := fmt.Sprintf("%d bytes behind", s.Slot.Behind)
		if !s.Slot.Active {
			text = "not active, " + text
		}
		if s.Slot.Text != "" {
			text = s.Slot.Text
		}
		line("slot", "%s, %s", s.Slot.Name, text)
	}
	switch {
	case s.Failed:
		fmt.Fprintln(w, "  when that is mended: unstale connector restart")
	case s.halted():
		fmt.Fprintln(w, "  nothing is sent until: unstale connector resume")
	}
}

func located(state connect.State, worker, reason string) string {
	text := string(state)
	if worker != "" {
		text += " on " + worker
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// settle waits until the connector has come to a state, and for how long it takes
// at most returns the one that it is in.
// It has come there when so many polls have agreed.
func (k *kafkaConnect) settle(ctx context.Context, polls int, there func(connect.Status) bool) (*connectorState, error) {
	deadline := time.Now().Add(settleMax)
	for agree, was := 0, false; ; {
		status, err := k.client.Status(ctx, k.name)
		switch {
		case errors.Is(err, connect.ErrNotFound): // just created
			agree = 0
		case err != nil:
			return nil, err
		case there(status):
			if status.Failed() != was {
				agree = 0
			}
			agree++
		default:
			agree = 0
		}
		was = status.Failed()
		enough := polls
		if was {
			enough = failedPolls
		}
		if err == nil && (agree >= enough || time.Now().After(deadline)) {
			return k.stateOf(status), nil
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settlePoll):
		}
	}
}

// gone waits until Connect no longer tells of the connector: only then has its
// task let go of the slot.
func (k *kafkaConnect) gone(ctx context.Context) error {
	deadline := time.Now().Add(settleMax)
	for {
		_, err := k.client.Status(ctx, k.name)
		switch {
		case errors.Is(err, connect.ErrNotFound):
			return nil
		case err != nil:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("connector %s is deleted, and after %s Connect still tells of it; its log may say why", k.name, settleMax)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePoll):
		}
	}
}

func (k *kafkaConnect) printSettled(ctx context.Context, w io.Writer, polls int, there func(connect.Status) bool) error {
	state, err := k.settle(ctx, polls, there)
	if err != nil {
		return err
	}
	state.print(w)
	if state.Failed {
		return errSaid
	}
	return nil
}
