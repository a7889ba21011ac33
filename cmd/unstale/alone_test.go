package main

import (
	"strings"
	"testing"

	"github.com/unstale/unstale/internal/config"
)

// Nobody knows that a name has no colon in it: "a:b" would be set over the key of
// another entry, or leave it.
func TestWithoutADatabaseEntriesMustBeToldApartWithoutTypes(t *testing.T) {
	const head = "redis: redis://localhost\nsource: {kafka: {brokers: ['localhost:9092'], topic_prefix: cdc}}\nentries:\n"
	for _, tt := range []struct {
		entries string
		want    string // empty: they can be
	}{
		{"  a: {key: 'user:{name}', table: users}\n  b: {key: 'user:{name}:{city}', table: users}\n", "could also be one of entry"},
		{"  a: {key: 'user:{id}', table: users}\n  b: {key: 'user:{id}:orders', table: orders}\n", "give `database`"},
		{"  a: {key: 'user:{name}', table: users}\n  b: {key: 'city:{name}:{city}', table: users}\n", ""},
		{"  a: {key: 'user:{name}:x', table: users}\n  b: {key: 'user:{name}:{city}:y', table: users}\n", ""},
	} {
		c, err := config.Parse("unstale.yaml", []byte(head+tt.entries), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		_, err = examineAlone(c)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.entries, err, tt.want)
		}
	}
}
