package plan

import (
	"fmt"
	"strings"

	"github.com/unstale/unstale/internal/change"
)

// Rule says what one kind of change to a table does to the keys of one entry.
type Rule struct {
	Table   string `json:"table"`             // schema-qualified
	Op      string `json:"op"`                // insert, update, delete or truncate
	Columns string `json:"columns,omitempty"` // of an update: those that it touches
	Effect  string `json:"effect"`            // drop or sweep
	Key     string `json:"key"`               // template of the keys
	Of      string `json:"of,omitempty"`      // which version of the row gives the key
	Entry   string `json:"entry"`
}

// Rules lists what changes do, by table in the order of the entries.
func (p *Planner) Rules() []Rule {
	var rules []Rule
	described := map[tableName]bool{}
	for i := range p.entries {
		name := tableName{p.entries[i].Schema, p.entries[i].Table}
		if described[name] {
			continue
		}
		described[name] = true
		for j := range p.entries {
			e := &p.entries[j]
			if (tableName{e.Schema, e.Table}) != name {
				continue
			}
			base := Rule{Table: name.schema + "." + name.table, Key: e.Key.String(), Entry: e.Name, Effect: "drop"}
			columns := strings.Join(e.Key.Columns(), ", ")
			for _, r := range []Rule{
				{Op: "insert", Of: "the new row"},
				{Op: "update", Columns: columns, Of: "the old row and the new"},
				{Op: "update", Columns: "any other", Of: "the row"},
				{Op: "delete", Of: "the old row"},
				{Op: "truncate", Effect: "sweep"},
			} {
				rule := base
				rule.Op, rule.Columns, rule.Of = r.Op, r.Columns, r.Of
				if r.Effect != "" {
					rule.Effect = r.Effect
				}
				rules = append(rules, rule)
			}
		}
	}
	return rules
}

// Outcome of one change, for people.
type Outcome struct {
	Effect string `json:"effect"` // drop or sweep
	Key    string `json:"key"`    // the key, or the template of the keys
	Reason string `json:"reason,omitempty"`
}

// Effects returns what c does.
func (p *Planner) Effects(c *change.Change) []Outcome {
	b := NewBatch()
	p.Plan(c, b)
	effects := []Outcome{}
	for i := range b.Len() {
		effects = append(effects, Outcome{Effect: "drop", Key: string(b.Key(i))})
	}
	for _, s := range b.Sweeps {
		reason := s.Reason
		if reason == "" {
			reason = fmt.Sprintf("the table was %s", s.Cause)
		}
		effects = append(effects, Outcome{"sweep", p.entries[s.Entry].Key.String(), reason})
	}
	return effects
}
