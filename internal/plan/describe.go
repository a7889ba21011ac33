package plan

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/value"
)

// What happens to keys, for people.
const (
	drop      = "drop"
	load      = "drop, then load"
	reload    = "drop, then load if it was cached"
	set       = "set"
	setCached = "set if cached"
	sweep     = "sweep"
	lookup    = "look up, then drop"
)

// Rule says what one kind of change to a table does to the keys of one entry.
type Rule struct {
	Table   string `json:"table"`             // schema-qualified
	Op      string `json:"op"`                // insert, update, delete or truncate
	Columns string `json:"columns,omitempty"` // of an update: those that it touches
	// Effect is drop, drop, then load, set, set if cached, or sweep. What is to
	// be set is dropped where the log does not have the whole value.
	Effect string `json:"effect"`
	Key    string `json:"key"`          // template of the keys
	Of     string `json:"of,omitempty"` // which version of the row gives the key
	Entry  string `json:"entry"`

	// What else there is to say where the key follows from a query. Op is any then:
	// insert, update of Columns, and delete do the same, for the old row and the new;
	// a truncate sweeps.
	Alias  string  `json:"alias,omitempty"`  // what the query calls the table
	Where  string  `json:"where,omitempty"`  // rows that do not pass are spared
	By     string  `json:"by,omitempty"`     // the columns of the row that the key follows from
	Any    string  `json:"any,omitempty"`    // of a sweep by columns: the placeholders that do not
	Why    string  `json:"why,omitempty"`    // of a sweep
	Lookup *Lookup `json:"lookup,omitempty"` // else the columns are the key
	// LoadsMax is how many of the keys that a lookup finds for a row are loaded again;
	// nil: the entry's values are not loaded.
	LoadsMax *int `json:"loads_max,omitempty"`
}

// Rules lists what changes do, by table in the order of the entries.
func (p *Planner) Rules() []Rule {
	var rules []Rule
	described := map[tableName]bool{}
	for i := range p.entries {
		for j := range p.entries[i].Dependencies {
			rules = append(rules, p.entries[i].dependencyRules(&p.entries[i].Dependencies[j])...)
		}
		name := tableName{p.entries[i].Schema, p.entries[i].Table}
		if described[name] || name == (tableName{}) {
			continue
		}
		described[name] = true
		for j := range p.entries {
			if e := &p.entries[j]; (tableName{e.Schema, e.Table}) == name {
				rules = append(rules, e.rules()...)
			}
		}
	}
	return rules
}

func (e *Entry) dependencyRules(d *Dependency) []Rule {
	rule := Rule{
		Table: d.Schema + "." + d.Table, Op: "any", Columns: strings.Join(d.Columns, ", "), Effect: sweep,
		Key: e.Key.String(), Entry: e.Name, Alias: d.Alias,
	}
	if d.Where != nil {
		rule.Where = d.Where.String()
	}
	if len(d.Paths) == 0 {
		rule.Why = d.Why
		return []Rule{rule}
	}
	var rules []Rule
	for i := range d.Paths {
		path := &d.Paths[i]
		rule.Effect, rule.Lookup, rule.By = drop, path.Lookup, strings.Join(path.Columns(), ", ")
		rule.Any, rule.Why, rule.LoadsMax = "", "", nil
		if e.Loads() {
			rule.Effect = load
		}
		switch {
		case path.Lookup != nil:
			rule.Effect = lookup
			if e.Loads() {
				rule.LoadsMax = &e.RefreshMax
			}
		case path.InPart():
			rule.Effect, rule.Why = sweep, d.Why
			var left []string
			for placeholder, column := range path.Key {
				if column == "" {
					left = append(left, "{"+e.Key.Columns()[placeholder]+"}")
				}
			}
			rule.Any = strings.Join(left, ", ")
		}
		rules = append(rules, rule)
	}
	return rules
}

func (e *Entry) rules() []Rule {
	put := [...]string{Invalidate: drop, Update: setCached, Warm: set, Refresh: load}[e.OnChange]
	columns := strings.Join(e.Key.Columns(), ", ")
	moved := []Rule{
		{Op: "update", Columns: columns, Effect: drop, Of: "the old row"},
		{Op: "update", Columns: columns, Effect: put, Of: "the new row"},
	}
	if put == drop {
		moved = []Rule{{Op: "update", Columns: columns, Effect: drop, Of: "the old row and the new"}}
	}
	rules := []Rule{{Op: "insert", Effect: put, Of: "the new row"}}
	rules = append(rules, moved...)
	rules = append(rules,
		Rule{Op: "update", Columns: "any other", Effect: put, Of: "the row"},
		Rule{Op: "delete", Effect: drop, Of: "the old row"},
		Rule{Op: "truncate", Effect: sweep})
	for i := range rules {
		rules[i].Table, rules[i].Key, rules[i].Entry = e.Schema+"."+e.Table, e.Key.String(), e.Name
	}
	return rules
}

// Outcome of one change, for people.
type Outcome struct {
	Effect string `json:"effect"` // as that of a Rule, or drop, then load if it was cached, or look up, then drop
	Key    string `json:"key"`    // the key, or the template of the keys
	// What is set: a text, or the fields of a hash.
	Value  string  `json:"value,omitempty"`
	Fields []Field `json:"fields,omitempty"`
	Reason string  `json:"reason,omitempty"` // why it is swept, or dropped and not set; by what it is looked up
}

// Field of a hash.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Effects returns what c does.
func (p *Planner) Effects(c *change.Change) []Outcome {
	b := NewBatch()
	p.Plan(c, b)
	effects := []Outcome{}
	for i := range b.Len() {
		effects = append(effects, p.outcome(b, i))
	}
	for _, q := range b.Questions {
		of := p.lookups[q.Lookup]
		var by []string
		for i, argument := range q.Arguments {
			text := "NULL"
			if argument.Valid {
				text = oneLine(argument.Text)
			}
			by = append(by, of.Arguments[i].Column+" = "+text)
		}
		e := &p.entries[of.Entry]
		reason := "by " + strings.Join(by, ", ")
		if e.Loads() {
			reason += "; " + LoadedAgain(e.RefreshMax)
		}
		effects = append(effects, Outcome{Effect: lookup, Key: e.Key.String(), Reason: reason})
	}
	for _, s := range b.Sweeps {
		reason := s.Reason
		if reason == "" {
			reason = fmt.Sprintf("the table was %s", s.Cause)
		}
		effects = append(effects, Outcome{Effect: sweep, Key: cmp.Or(s.Part, p.entries[s.Entry].Key.String()), Reason: reason})
	}
	return effects
}

// oneLine quotes a text that would not be seen as it is.
func oneLine(text string) string {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return strconv.Quote(text)
	}
	return text
}

// LoadedAgain says how many of the keys that a lookup finds are loaded again, for people.
func LoadedAgain(most int) string {
	switch most {
	case 0:
		return "none of them is loaded again"
	case 1:
		return "the first of them is loaded again"
	}
	return fmt.Sprintf("the first %d of them are loaded again", most)
}

// outcome describes key i of a batch that holds one change.
func (p *Planner) outcome(b *Batch, i int) Outcome {
	o := Outcome{Effect: drop, Key: string(b.Key(i))}
	switch {
	case b.Loads(i):
		o.Effect = load
	case b.Effect(i) == Reload:
		o.Effect = reload
	}
	if !b.Effect(i).sets() {
		// The key of the old row stands before that of the new, which is the one
		// that was to be set.
		if last := i == b.Len()-1 || b.Entry(i+1) != b.Entry(i); last {
			for _, incomplete := range b.Incomplete {
				if incomplete.Entry == b.Entry(i) {
					o.Reason = incomplete.Reason
				}
			}
		}
		return o
	}
	o.Effect = set
	if b.Effect(i) == SetCached {
		o.Effect = setCached
	}
	encoded, _ := b.Value(i)
	if !p.entries[b.Entry(i)].Hash {
		o.Value = string(encoded)
		return o
	}
	for name, text := range value.Fields(encoded) {
		o.Fields = append(o.Fields, Field{string(name), string(text)})
	}
	return o
}
