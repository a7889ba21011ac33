package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// Whoever has written a query is told what is wrong with it, where, and what mends it; and
// nothing else.
func TestWhatCheckSaysOfQueries(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, sharedPostgres(t, 15), sharedRedis(t))
	execute(t, f.conn,
		`CREATE TABLE items (id int PRIMARY KEY, tags text[], js json, n numeric, name text)`,
		`ALTER TABLE items REPLICA IDENTITY FULL`)
	var told strings.Builder
	for _, entry := range []string{
		"key: 'a:{tag}', query: 'SELECT id FROM items WHERE tags @> ARRAY[@tag]'",
		"key: 'a:{tag}', query: 'SELECT id FROM items WHERE @tag = ANY (tags)'",
		"key: 'a:{k}', query: 'SELECT id FROM items WHERE js->>''a'' = @k'",
		"key: 'a:{k}', query: 'SELECT id FROM items WHERE n::bigint = @k'",
	} {
		path, _ := writeConfig(t, f.config("  a: {"+entry+"}\n"))
		out, _, _ := unstaleCommand(t, "check", "--config", path)
		fmt.Fprintf(&told, "%s\n----\n", entry)
		for said := range strings.SplitSeq(out, "\n\n") {
			if !strings.HasPrefix(said, "advice: setting ") { // of the server, whatever is written
				fmt.Fprintf(&told, "%s\n\n", strings.TrimSpace(strings.ReplaceAll(said, path, "unstale.yaml")))
			}
		}
	}
	golden(t, "words.txt", told.String())
}
