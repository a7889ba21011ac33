package query

import "github.com/unstale/unstale/internal/plan"

// A Rule keeps a change from being missed. The property test leaves one out to see
// that it notices; nobody else does.
type Rule uint16

const (
	// MissingSides: a condition above an outer join does not count for the side that
	// may be missing, unless it is not true there.
	MissingSides Rule = 1 << iota
	// HeldColumns: no condition is carried past a LIMIT, a window, DISTINCT ON or an
	// aggregate.
	HeldColumns
	// NullsInNotIn: a NULL among what NOT IN shows touches whatever is compared.
	NullsInNotIn
	// StandingBlocks: an aggregate shows a row though it reads none.
	StandingBlocks
	// WaitingSides: the far side of an outer join may not be there.
	WaitingSides
	// NullPredicates: IS NOT TRUE and IS NOT FALSE are true of NULL.
	NullPredicates
	// InheritedTables: reading a table reads those that inherit from it.
	InheritedTables
	// Families: a value is the text of another only if equality is that of texts.
	Families
	// Settled: a lookup runs later than the change that it serves.
	Settled
	// ReadElsewhere: a column of a condition matters by itself if something else reads it.
	ReadElsewhere
	// Settings: what depends on the settings of a session is not asked in another.
	Settings
)

// Rules are all of them.
var Rules = []struct {
	Rule
	Name string
}{
	{MissingSides, "missing sides of outer joins"}, {HeldColumns, "held columns"}, {NullsInNotIn, "NULLs in NOT IN"}, {StandingBlocks, "standing blocks"},
	{WaitingSides, "waiting sides of outer joins"}, {NullPredicates, "predicates on NULL"}, {InheritedTables, "inherited tables"}, {Families, "families of types"}, {Settled, "lookups that run later"}, {ReadElsewhere, "columns read elsewhere"},
	{Settings, "settings of sessions"},
}

// DeriveWithout is [Query.DeriveIndexed] without a rule, which makes it miss changes.
func (q *Query) DeriveWithout(rule Rule, catalog Catalog, types []Type, key []string) ([]plan.Dependency, error) {
	return q.derive(rule, true, catalog, types, key)
}
