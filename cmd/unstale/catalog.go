package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// catalogTimeout bounds one look at the catalog, connecting included.
const catalogTimeout = 10 * time.Second

// diagnoseEach is how many looks there are to a diagnosis where nothing shows in
// the fingerprints: a minute's. An index may go, without which two rows can have
// one key, or a right of the role. Neither makes cached values wrong, so that a
// sweep would be for nothing, but somebody ought to know.
const diagnoseEach = 12

// A catalog tells the loop what the entries' values are made of. It belongs to
// one goroutine at a time.
type catalog struct {
	config  *pgx.ConnConfig
	needs   database.Needs
	entries []plan.Entry
	logger  *slog.Logger
	// derive, if not nil, derives the dependencies of the entries again.
	derive func(context.Context, *pgx.Conn) ([]derived, config.Problems, error)
	// definitions are those of the views and functions when it did so last.
	definitions string
	// unplanned says what is wrong with an entry whose query cannot be planned any more.
	unplanned map[string]string
	// describe, if not nil, is told what the tables are whenever they have changed.
	describe func([]database.Table, plan.Shapes)

	conn *pgx.Conn
	last guard.Fingerprints
	// shaped are the fingerprints of the tables when their shapes were read last.
	shaped map[database.Name]string
	// published is how each table was published at the last look; settling has,
	// for those of which that has changed, the transaction id below which all
	// must have ended.
	published map[database.Name]database.Published
	settling  map[database.Name]int64
	// wrong has what stood in the way at the last diagnosis; looks counts the
	// looks.
	wrong []database.Problem
	looks int
}

// Look implements apply.Catalog.
func (c *catalog) Look(ctx context.Context) (apply.Look, error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		return apply.Look{}, err
	}
	var names []database.Name
	for i := range c.entries {
		for _, name := range tablesOf(&c.entries[i]) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	var wanted []string
	for i := range c.entries {
		wanted = append(wanted, c.entries[i].Key.Columns()...)
	}
	keys, err := database.KeyColumns(ctx, c.conn, names, wanted)
	// What views and functions do is read before all that is derived with them.
	var definitions string
	var unique map[database.Name][]database.UniqueKey
	if indexed := indexedTables(c.entries); err == nil && len(indexed) > 0 {
		unique, err = database.UniqueKeys(ctx, c.conn, indexed)
	}
	if err == nil && slices.ContainsFunc(c.entries, derivedFrom) {
		definitions, err = database.Definitions(ctx, c.conn)
	}
	if err != nil {
		c.close(ctx)
		return apply.Look{}, err
	}
	fingerprints, published, shapes, err := c.ask(ctx, names)
	if err != nil {
		c.close(ctx)
		return apply.Look{}, err
	}
	for _, e := range c.entries {
		name := database.Name{Schema: e.Schema, Table: e.Table}
		if p := published[name]; p.Inherited && !derivedFrom(e) {
			p.Whole = false // an entry over a table has no rows but those of that one
			published[name] = p
		}
	}
	unpublished := c.publishedAs(published)
	today := guard.Fingerprints{}
	for i := range c.entries {
		e := &c.entries[i]
		var tables, publishedBy []string
		var settling int64
		for _, name := range tablesOf(e) {
			tables, publishedBy = append(tables, fingerprints[name]), append(publishedBy, published[name].By)
			settling = max(settling, c.settling[name])
		}
		if derivedFrom(*e) {
			// A view or a function may show something else of the same columns.
			tables = append(tables, definitions)
		}
		tables = append(tables, indexPrints(e, unique)...)
		print := fingerprint(e, strings.Join(tables, " "), strings.Join(publishedBy, " "), settling)
		print.Letters, print.Columns = keyOf(e, keys[database.Name{Schema: e.Schema, Table: e.Table}])
		today[e.Name] = print
	}
	c.looks++
	if err := c.replan(ctx, today, definitions); err != nil {
		return apply.Look{}, err
	}
	if unpublished != nil {
		return apply.Look{}, c.without(unpublished)
	}
	if c.last != nil && !maps.Equal(c.last, today) || len(c.wrong) > 0 || c.looks%diagnoseEach == 0 {
		c.diagnose(ctx)
	}
	c.last = maps.Clone(today)
	c.doubt(today)
	if shapes != nil {
		c.shaped = fingerprints
	}
	return apply.Look{Fingerprints: today, Shapes: shapes, Unplanned: maps.Clone(c.unplanned)}, nil
}

// Replan implements apply.Catalog.
func (c *catalog) Replan(ctx context.Context) error {
	if c.derive == nil || !slices.ContainsFunc(c.entries, derivedFrom) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		return err
	}
	found, problems, err := c.derive(ctx, c.conn)
	if err != nil {
		c.close(ctx)
		return err
	}
	if err := c.compare(found, problems); err != nil {
		return err
	}
	for i := range c.entries {
		e := &c.entries[i]
		if _, held := c.unplanned[e.Name]; held && len(tablesOf(e)) > 0 {
			return fmt.Errorf("%w: %s", change.ErrReplan, e.Name)
		}
	}
	return nil
}

func (c *catalog) connect(ctx context.Context) (err error) {
	if c.conn != nil && !c.conn.IsClosed() {
		return nil
	}
	if c.conn, err = pgx.ConnectConfig(ctx, c.config); err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	return nil
}

// fingerprint is another one whenever values that are cached for e may not be what
// they ought to be. The columns are a set: a row has them in the table's order.
func fingerprint(e *plan.Entry, table, publishedBy string, settling int64) guard.Fingerprint {
	text := fmt.Appendf(nil, "%q %q %q %q %d %v %q %v",
		table, e.Schema, e.Table, publishedBy, settling, e.OnChange, slices.Sorted(slices.Values(e.Columns)), e.Hash)
	if e.Query != "" {
		text = fmt.Appendf(text, " %q %v", e.Query, e.Many)
	}
	if e.CacheAbsent {
		text = append(text, " absent"...)
	}
	if e.DependsOn != "" {
		text = fmt.Appendf(text, " %q", e.DependsOn)
	}
	sum := sha256.Sum256(text)
	return guard.Fingerprint{Key: e.Key.String(), Hash: hex.EncodeToString(sum[:8])}
}

// indexedTables are those of the indexes of entries, each once.
func indexedTables(entries []plan.Entry) []database.Name {
	var names []database.Name
	for i := range entries {
		for _, x := range entries[i].Indexes() {
			if name := (database.Name{Schema: x.Schema, Table: x.Table}); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// indexPrints tell what the indexes of an entry hold from what they held otherwise. Where
// rows may have been alike in between, one of them may have taken out the member of
// another.
func indexPrints(e *plan.Entry, unique map[database.Name][]database.UniqueKey) []string {
	var texts []string
	for _, x := range e.Indexes() {
		text := x.Definition(e)
		for _, key := range unique[database.Name{Schema: x.Schema, Table: x.Table}] {
			if x.UniqueBy([][]string{key.Columns}) {
				text = fmt.Sprintf("%s %d", text, key.Index)
			}
		}
		texts = append(texts, text)
	}
	return texts
}

// keyOf says what the key's values are made of, and of which columns.
func keyOf(e *plan.Entry, columns map[string]database.KeyColumn) (letters, histories string) {
	var alphabets []guard.Alphabet
	sum := sha256.New()
	for _, name := range e.Key.Columns() {
		column, known := columns[name]
		if !known {
			return "", ""
		}
		alphabets = append(alphabets, plan.Alphabet(column.TypeOID))
		fmt.Fprintf(sum, "%q %q ", name, column.History)
	}
	return guard.Letters(alphabets...), hex.EncodeToString(sum.Sum(nil)[:8])
}

// doubt makes the fingerprint of an entry over a partitioned table another one
// with each look, while the replica identity of a partition is wrong. The stream
// describes the rows of a partition by the replica identity of the root, so what
// a lesser one leaves out cannot be seen there; the entry is swept again and
// again instead, and the instance is not ready, until a person has mended it. So is one
// over a table that others inherit from: their changes come under their names, where the
// publication does not show that.
func (c *catalog) doubt(today guard.Fingerprints) {
	if len(c.wrong) == 0 {
		return
	}
	for _, e := range c.entries {
		if slices.ContainsFunc(c.wrong, func(p database.Problem) bool {
			return slices.Contains(tablesOf(&e), p.Table) && (partitioned(e) || p.Entry == e.Name)
		}) {
			entry := today[e.Name]
			entry.Hash = fmt.Sprintf("%s in doubt %d", entry.Hash, c.looks)
			today[e.Name] = entry
		}
	}
}

// partitioned reports whether the entry is over a partitioned table.
func partitioned(e plan.Entry) bool {
	return e.Partitioned || slices.ContainsFunc(e.Dependencies, func(d plan.Dependency) bool { return d.Partitioned })
}

// replan derives again what follows from queries and from depends_on, whenever a
// table, a view or a function has changed. An entry whose query cannot be planned any
// more is swept again and again, and the instance is not ready, until a person has
// mended it.
func (c *catalog) replan(ctx context.Context, today guard.Fingerprints, definitions string) error {
	if c.derive == nil || definitions == "" {
		return nil
	}
	if definitions != c.definitions || c.last == nil || !maps.Equal(c.last, today) || len(c.unplanned) > 0 {
		found, problems, err := c.derive(ctx, c.conn)
		if err != nil {
			c.close(ctx)
			return err
		}
		c.definitions = definitions
		if err := c.compare(found, problems); err != nil {
			return err
		}
	}
	for name := range c.unplanned {
		entry := today[name]
		entry.Hash = fmt.Sprintf("%s unplanned %d", entry.Hash, c.looks)
		today[name] = entry
	}
	return nil
}

// compare holds what is derived now against what the planner has.
func (c *catalog) compare(found []derived, problems config.Problems) error {
	before := c.unplanned
	c.unplanned = map[string]string{}
	var changed []string
	for i := range c.entries {
		e := &c.entries[i]
		if !derivedFrom(*e) {
			continue
		}
		if at := slices.IndexFunc(problems, func(p config.Problem) bool { return strings.HasPrefix(p.Path, "entries."+e.Name+".") }); at >= 0 {
			c.unplanned[e.Name] = problems[at].Text
			if before[e.Name] != problems[at].Text {
				c.logger.Error("the database has changed and a query cannot be planned any more: its entry is swept again and again", "entry", e.Name, "problem", problems[at].Text, "mend", problems[at].Mend)
			}
			continue
		}
		if !sameDependencies(e.Dependencies, found[i].dependencies) {
			changed = append(changed, e.Name)
		}
	}
	if len(before) > 0 && len(c.unplanned) == 0 {
		c.logger.Info("every query can be planned again")
	}
	if len(changed) > 0 {
		return fmt.Errorf("%w: %s", change.ErrReplan, strings.Join(changed, ", "))
	}
	return nil
}

// without is why the stream must be taken over again where the changes of a table are not
// all sent: if only entries want it that cannot be planned any more, without them.
func (c *catalog) without(unpublished error) error {
	why := unpublished
	for i := range c.entries {
		e := &c.entries[i]
		if !slices.ContainsFunc(tablesOf(e), func(n database.Name) bool { return !c.published[n].Whole }) {
			continue
		}
		if _, held := c.unplanned[e.Name]; !held {
			return unpublished
		}
		why = fmt.Errorf("%w: %s", change.ErrReplan, e.Name)
	}
	return why
}

// derivedFrom reports whether the keys of an entry follow from a query, or from depends_on.
func derivedFrom(e plan.Entry) bool { return e.Table == "" }

// sameDependencies compares what follows from a query; which tables are partitioned, and
// by what their rows are identified, is not part of that.
func sameDependencies(a, b []plan.Dependency) bool {
	return slices.EqualFunc(a, b, func(x, y plan.Dependency) bool {
		x.Partitioned, x.PrimaryKey = y.Partitioned, y.PrimaryKey
		return reflect.DeepEqual(x, y)
	})
}

// diagnose says what a change of the catalog has broken: a new partition whose
// replica identity does not hold the key columns, a key column that is gone, a
// key that is no longer that of one row. Only a person can mend that.
func (c *catalog) diagnose(ctx context.Context) {
	problems, err := database.Diagnose(ctx, c.conn, c.needs)
	if err != nil {
		c.close(ctx) // the next look connects anew and says what is wrong
		return
	}
	var wrong []database.Problem
	for _, p := range problems {
		if p.Severity != database.Wrong {
			continue
		}
		wrong = append(wrong, p)
		if !slices.ContainsFunc(c.wrong, func(before database.Problem) bool { return before.String() == p.String() }) {
			mend := slices.Clone(p.Mend)
			if p.Then != "" {
				mend = append(mend, p.Then)
			}
			c.logger.Error("the database has changed and needs a person", "subject", p.Subject, "problem", p.Text, "mend", strings.Join(mend, "; "))
		}
	}
	if len(wrong) == 0 && len(c.wrong) > 0 {
		c.logger.Info("what was wrong with the database is mended")
	}
	c.wrong = wrong
}

// publishedAs compares with the last look. Whenever somebody has changed what is
// published, even if it is now as it was, changes were missed: the fingerprint
// differs, for one look that succeeds at least, and the entry is swept. A
// transaction that was running then may have written rows that are never sent,
// and commit later: when all of those have ended the fingerprint differs once
// more.
func (c *catalog) publishedAs(now map[database.Name]database.Published) error {
	if c.settling == nil {
		c.settling = map[database.Name]int64{}
	}
	var incomplete []string
	for name, p := range now {
		before, known := c.published[name]
		switch {
		case known && before.By != p.By, !p.Whole:
			c.settling[name] = p.XMax
		case before.Whole && p.XMin >= c.settling[name]:
			delete(c.settling, name)
		}
		if !p.Whole {
			incomplete = append(incomplete, name.String())
		}
	}
	c.published = now
	if len(incomplete) > 0 {
		slices.Sort(incomplete)
		return fmt.Errorf("%w: %s", change.ErrUnpublished, strings.Join(incomplete, ", "))
	}
	return nil
}

// ask reads the fingerprints first: a shape that is newer than its fingerprint
// is read again with the next look, one that is older never would be.
func (c *catalog) ask(ctx context.Context, names []database.Name) (map[database.Name]string, map[database.Name]database.Published, plan.Shapes, error) {
	fingerprints, err := database.Fingerprints(ctx, c.conn, names)
	if err != nil {
		return nil, nil, nil, err
	}
	var published map[database.Name]database.Published
	if !c.needs.Foreign {
		published, err = database.Publications(ctx, c.conn, c.needs.Publication, names)
	}
	sets := slices.ContainsFunc(c.entries, func(e plan.Entry) bool { return e.Sets() })
	if err != nil || maps.Equal(fingerprints, c.shaped) || !sets && c.describe == nil {
		return fingerprints, published, nil, err
	}
	found, err := database.Shapes(ctx, c.conn, names)
	shapes := make(plan.Shapes, len(c.entries))
	for i, e := range c.entries {
		if at := slices.Index(names, database.Name{Schema: e.Schema, Table: e.Table}); at >= 0 && err == nil {
			shapes[i] = found[at]
		}
	}
	if err == nil && c.describe != nil {
		var tables []database.Table
		if tables, err = database.Tables(ctx, c.conn, names); err == nil {
			c.describe(tables, found)
		}
	}
	return fingerprints, published, shapes, err
}

func (c *catalog) close(ctx context.Context) {
	if c.conn != nil {
		_ = c.conn.Close(ctx) // it holds nothing
		c.conn = nil
	}
}
