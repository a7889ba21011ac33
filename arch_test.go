package unstale_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/unstale/unstale"

// arrows is the list of imports between our packages that ARCHITECTURE.md
// draws. They point the way of the data, towards change and guard.
var arrows = map[string][]string{
	".":                    {"internal/change", "internal/guard"},
	"internal/change":      {},
	"internal/guard":       {"internal/change"},
	"internal/config":      {},
	"internal/plan":        {"internal/change", "internal/guard", "internal/value"},
	"internal/query":       {"internal/plan"},
	"internal/apply":       {"internal/change", "internal/guard", "internal/plan"},
	"internal/fill":        {"internal/change", "internal/guard", "internal/plan"},
	"internal/pgsource":    {"internal/change"},
	"internal/kafkasource": {"internal/change", "internal/debezium"},
	"internal/deadletter":  {"internal/change", "internal/guard"},
	"internal/value":       {"internal/change"},
	"internal/connect":     {},
	"internal/debezium":    {"internal/change", "internal/value"},
	"internal/database":    {"internal/change", "internal/plan", "internal/query", "internal/value"},
	"internal/redissink":   {"internal/guard", "internal/plan", "internal/value"},
	"internal/admin":       {"internal/apply", "internal/deadletter", "internal/fill"},
	"internal/stack":       {},
	"internal/demo":        {".", "internal/connect", "internal/database", "internal/guard", "internal/pgsource", "internal/plan", "internal/stack"},
	"cmd/unstale": {
		"internal/admin", "internal/apply", "internal/change", "internal/config", "internal/connect", "internal/database", "internal/deadletter",
		"internal/debezium", "internal/demo", "internal/fill", "internal/guard", "internal/kafkasource", "internal/pgsource", "internal/plan",
		"internal/query", "internal/redissink", "internal/value",
	},
}

// A package that imports against the data's way makes the next reader follow
// two directions at once, and soon every package knows every other.
func TestImportsFollowTheDrawing(t *testing.T) {
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && file != "." || entry.Name() == "testdata" || file == "test") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		// The files are read here, not by `go list`, whose answer the test cache
		// cannot see change.
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil || parsed.Name.Name == "main" && filepath.Dir(file) != "cmd/unstale" {
			return err
		}
		from := path.Clean(filepath.ToSlash(filepath.Dir(file)))
		if _, ok := found[from]; !ok {
			found[from] = nil
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			to, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			if to = strings.TrimPrefix(to, "/"); to == "" {
				to = "."
			}
			if !slices.Contains(found[from], to) {
				found[from] = append(found[from], to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for from, imports := range found {
		allowed, drawn := arrows[from]
		if !drawn {
			t.Errorf("package %s is not in the drawing", from)
		}
		for _, to := range imports {
			if !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s, which is not in the drawing", from, to)
			}
		}
	}
	for from, allowed := range arrows {
		imports, exists := found[from]
		if !exists {
			t.Errorf("package %s is in the drawing and not in the tree", from)
		}
		for _, to := range allowed {
			if exists && !slices.Contains(imports, to) {
				t.Errorf("the drawing has an arrow from %s to %s that nothing uses", from, to)
			}
		}
	}
}
