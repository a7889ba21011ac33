package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

const (
	// fileSizeMax bounds the configuration file, in bytes.
	fileSizeMax = 1 << 20
	// passwordSizeMax bounds a password file, in bytes.
	passwordSizeMax = 64 << 10
	// aliasHopsMax bounds a chain of aliases: it can be a circle.
	aliasHopsMax = 16
)

// Parse reads a configuration from text. The name is for problems, and files
// that the configuration names are relative to its directory. getenv is
// usually [os.LookupEnv]. The Config is there even where the error is
// [Problems].
func Parse(name string, text []byte, getenv func(string) (string, bool)) (*Config, error) {
	if len(text) > fileSizeMax {
		return nil, fmt.Errorf("%s is larger than %d bytes: is it the configuration?", name, fileSizeMax)
	}
	// The YAML parser counts a line twice where it ends in CR LF.
	plain := strings.TrimPrefix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\ufeff")
	r := &reader{
		document:  newDocument(name, plain),
		directory: filepath.Dir(name),
		getenv:    getenv,
		anchors:   make(map[string]ast.Node),
	}
	r.config = &Config{document: r.document}
	for i := range settings {
		if s := &settings[i]; !s.inEntry() {
			r.fillDefault(s, nil)
		}
	}
	if body := r.body(plain); body != nil {
		r.document.parsed = true
		r.value("", root, body, nil)
		r.agree()
	}
	var problems Problems
	for _, f := range r.found {
		problems = append(problems, r.document.problem(f.at, f.path, f.text, f.mend))
	}
	return r.config, problems.Err()
}

// File is the name that the configuration was read under.
func (c *Config) File() string { return c.document.file }

// Problem describes something wrong with the value at path, like
// "entries.product.key", in the form of the parser's own problems. Of a path
// that the file does not have, the nearest mapping around it is shown.
func (c *Config) Problem(path, text, mend string) Problem {
	return c.ProblemAt(path, 0, text, mend)
}

// ProblemAt is Problem with the caret under the byte at offset of the value.
func (c *Config) ProblemAt(path string, offset int, text, mend string) Problem {
	return c.document.problem(c.document.find(path).at(offset), path, text, mend)
}

// A reader turns the nodes of a document into a Config.
type reader struct {
	document  *document
	directory string
	getenv    func(string) (string, bool)
	config    *Config
	anchors   map[string]ast.Node
	found     []finding
}

// A finding is a problem before its line is shown. That has to wait for the
// end: a secret further on in the same line is not known before.
type finding struct {
	at               spot
	path, text, mend string
}

func (r *reader) add(at spot, path, text, mend string) {
	r.found = append(r.found, finding{at, path, text, mend})
}

// addAt adds a problem with the value at path as a whole.
func (r *reader) addAt(path, text, mend string) {
	r.add(r.document.find(path).at(0), path, text, mend)
}

// body parses the text. It is nil if the text is not YAML.
func (r *reader) body(text string) ast.Node {
	file, err := parseYAML(text)
	if err != nil {
		var syntax *yaml.SyntaxError
		if !errors.As(err, &syntax) {
			r.add(spot{}, "", "is no YAML: "+firstLine(err.Error()), "")
			return nil
		}
		at := r.document.spotOf(syntax.Token)
		r.add(at, "", "is no YAML: "+firstLine(syntax.Message), syntaxMend(syntax.Message, r.document.lines[at.line]))
		return nil
	}
	var body ast.Node = &ast.NullNode{}
	for i, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if i > 0 {
			r.add(spot{line: r.document.spotOf(doc.Body.GetToken()).line}, "", "is a second YAML document", "write one document: take out the ---")
			break
		}
		body = doc.Body
	}
	return body
}

// parseYAML keeps what the YAML parser does with strange input from ending the
// process: an operator must get a problem, not a stack trace.
func parseYAML(text string) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", p)
		}
	}()
	return parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// syntaxMend guesses from the line what breaks YAML most often in this file.
func syntaxMend(message, line string) string {
	_, value, _ := strings.Cut(line, ": ")
	value = strings.TrimSpace(value)
	switch {
	case strings.Contains(message, "-quoted text"):
		return "close the quote"
	case strings.Contains(line, "\t"):
		return "indent with spaces: YAML allows no tabs"
	case strings.HasPrefix(value, "{"):
		return `put quotes around a value with braces inside a { } mapping, or that begins with one: key: "product:{id}"`
	case strings.HasPrefix(value, "@"), strings.HasPrefix(value, "*"), strings.HasPrefix(value, "%"), strings.HasPrefix(value, "`"):
		return "put single quotes around the whole value"
	case strings.Contains(value, ": "):
		return "put quotes around a value that has a colon and a space in it"
	}
	return "look at the indentation here and in the line above: the keys of one mapping begin in the same column"
}

// value reads the node as what s describes. It records the place of the value
// at path, whether it is right or not.
func (r *reader) value(path string, s *setting, node ast.Node, e *Entry) {
	node, ok := r.resolve(path, node)
	if !ok {
		return
	}
	if s.at == nil {
		r.mapping(path, s, node, e)
		return
	}
	if names, isList := s.at(r.config, e).(*[]string); isList {
		r.list(path, s, node, names, e)
		return
	}
	r.single(path, s, node, e)
}

// list reads a list of names, each of which has a place of its own.
func (r *reader) list(path string, s *setting, node ast.Node, names *[]string, e *Entry) {
	list, ok := node.(*ast.SequenceNode)
	switch {
	case !ok && s.alone:
		r.single(path, s, node, e)
		return
	case !ok:
		r.addAt(path, fmt.Sprintf("is %s, not a list", kindOf(node)), s.writeExample())
		return
	case len(list.Values) == 0:
		mend := s.writeExample()
		if !s.required {
			mend += ", or leave it out"
		}
		r.addAt(path, "is empty", mend)
	}
	for i, node := range list.Values {
		path := element(path, i)
		r.document.places[path] = place{start: r.document.spotOf(node.GetToken())}
		if node, ok := r.resolve(path, node); ok {
			r.single(path, s, node, e)
		}
	}
}

// single reads a node that is one value: what s describes, or one of a list.
func (r *reader) single(path string, s *setting, node ast.Node, e *Entry) {
	text, isText := scalar(node)
	if _, isNull := node.(*ast.NullNode); isNull {
		r.addAt(path, "has no value", s.writeExample())
		return
	}
	if !isText {
		mend := s.writeExample()
		if m, isMapping := node.(*ast.MappingNode); isMapping && m.IsFlowStyle && s.path == "entries.*.key" {
			mend = `put quotes around a value that begins with a brace: "{id}:name"`
		}
		if s.path == "source.kafka.brokers" {
			// The YAML parser reads [host:port] inside a { } as a mapping.
			mend = `put quotes around it: "localhost:9092"`
		}
		r.addAt(path, fmt.Sprintf("is %s, not a single value", kindOf(node)), mend)
		return
	}
	where := r.document.places[path]
	if s.isSecret(text) {
		r.document.hideValue(node, where)
	}
	value, from, faults := expand(text, r.getenv)
	for _, f := range faults {
		r.add(where.at(f.offset), path, f.text, f.mend)
	}
	if len(faults) > 0 {
		return
	}
	if where.from != nil {
		spots := make([]spot, len(from))
		for i, f := range from {
			spots[i] = where.from[min(f, len(where.from)-1)]
		}
		where.from = spots
		r.document.places[path] = where
	}
	if f := r.set(s, value, e); f != nil {
		r.add(where.at(f.offset), path, f.text, f.mend)
	}
}

// resolve looks through tags, anchors and aliases, and records where the value
// stands.
func (r *reader) resolve(path string, node ast.Node) (ast.Node, bool) {
	for range aliasHopsMax {
		switch n := node.(type) {
		case *ast.TagNode:
			node = n.Value
		case *ast.AnchorNode:
			r.anchors[n.Name.String()] = n.Value
			node = n.Value
		case *ast.AliasNode:
			target, ok := r.anchors[n.Value.String()]
			if !ok {
				r.add(r.document.spotOf(n.GetToken()), path, fmt.Sprintf("refers to &%s, which is not set above", n.Value), "write the value itself")
				return nil, false
			}
			node = target
		default:
			if node == nil {
				node = &ast.NullNode{}
			}
			r.place(path, node)
			return node, true
		}
	}
	r.addAt(path, "refers to itself", "write the value itself")
	return nil, false
}

// place records where the node stands.
func (r *reader) place(path string, node ast.Node) {
	switch n := node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		// The key shows a mapping better than its first brace or colon.
	case *ast.NullNode:
	case *ast.LiteralNode:
		text, _ := scalar(n)
		r.document.places[path] = r.document.locate(n.Start, text)
	default:
		text, _ := scalar(node)
		r.document.places[path] = r.document.locate(node.GetToken(), text)
	}
}

// scalar is the text of a plain value. Numbers and truth values keep the form
// that they were written in: a password of 0123 is not 83.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	}
	return "a single value"
}

// mapping reads the keys of a mapping.
func (r *reader) mapping(path string, s *setting, node ast.Node, e *Entry) {
	var pairs []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	case *ast.NullNode:
		// All keys of an optional mapping may be commented out.
	default:
		_, isText := scalar(node)
		if _, isList := node.(*ast.SequenceNode); s.short != "" && (isText || isList && s.child(s.short).isList()) {
			if s.path == dependencyPath {
				path = join(path, s.short) // columns have places of their own
			}
			r.value(path, s.child(s.short), node, e)
			return
		}
		want := "a mapping"
		switch {
		case s.isSwitch():
			want = "true, false or a mapping"
		case s.path == dependencyPath:
			want = "a column, a list of columns or a mapping"
		case s.short != "":
			want = "a URL or a mapping"
		}
		r.addAt(path, fmt.Sprintf("is %s, not %s", kindOf(node), want), s.writeExample())
		return
	}
	if len(pairs) == 0 {
		switch s.path {
		case "entries":
			r.addAt(path, "is empty: there is nothing to keep coherent", s.writeExample())
		case "entries.*.depends_on":
			r.addAt(path, "is empty: nothing would ever drop a key", s.writeExample())
		}
	}
	seen := make(map[string]int)
	for _, pair := range pairs {
		r.pair(path, s, pair, e, seen)
	}
	if _, said := seen[s.short]; s.isSwitch() && !said {
		*s.child(s.short).at(r.config, e).(*bool) = true
	}
	for _, c := range s.children() {
		if _, ok := seen[c.name()]; c.required && !ok && !r.has(c.unless) && !r.misspelt(path, c.name()) {
			r.addAt(join(path, c.name()), "is missing", c.writeExample())
		}
	}
}

// pair reads one key and its value.
func (r *reader) pair(path string, s *setting, pair *ast.MappingValueNode, e *Entry, seen map[string]int) {
	name := pair.Key.GetToken().Value
	at := r.document.spotOf(pair.Key.GetToken())
	full := join(path, name)
	switch pair.Key.(type) {
	case *ast.MergeKeyNode:
		r.add(at, full, "merging of mappings is not supported", "write the keys out")
		return
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
	default:
		r.add(at, path, "has a key that is not a plain word", "write a plain word")
		return
	}
	if line, twice := seen[name]; twice {
		r.add(at, full, fmt.Sprintf("is there already, in line %d", line), "keep one of them")
		return
	}
	seen[name] = at.line + 1
	c := s.child(name)
	if c == nil {
		r.unknown(at, full, name, s, pair.Value)
		return
	}
	r.document.places[full] = place{start: at}
	if c.path == "entries.*" {
		if !entryNamePattern.MatchString(name) {
			r.add(at, path, fmt.Sprintf("%s is no name of an entry", quote(name)), "write 1 to 63 letters, digits, _ and -")
			return
		}
		e = r.newEntry(name)
	}
	if c.path == dependencyPath && !r.newDependency(full, name, pair.Key, e) {
		return
	}
	r.value(full, c, pair.Value, e)
	if c.path == dependencyPath {
		r.document.places[full] = place{start: at} // also where its key stands alone
		r.leads(full, e.dependency())
	}
	if e != nil && c.path == "entries.*" {
		r.over(full, e)
		r.unwritten(full, e)
		r.config.Entries = append(r.config.Entries, *e)
	}
}

// over reports an entry that is not over one thing, and settings that have no
// meaning for what it is over.
func (r *reader) over(path string, e *Entry) {
	var given []string
	for _, kind := range kinds {
		if r.has(join(path, kind)) {
			given = append(given, kind)
		}
	}
	switch len(given) {
	case 0:
		if slices.ContainsFunc(kinds, func(kind string) bool { return r.misspelt(path, kind) }) {
			return
		}
		r.addAt(join(path, "table"), "is missing", "write table: products; or a query; or depends_on")
		return
	case 1:
	default:
		r.addAt(join(path, given[1]), fmt.Sprintf("stands beside %s: an entry is over one of them", given[0]), "take one of them out, or write two entries")
		return
	}
	kind := given[0]
	over := "over a " + kind
	if kind == "depends_on" {
		over = "with depends_on"
	}
	for i := range settings {
		at := join(path, settings[i].name())
		if !settings[i].isOf(kind) && r.has(at) {
			r.addAt(at, "has no meaning for an entry "+over, "take it out")
		}
	}
	onChange := join(path, "on_change")
	switch {
	case !r.has(onChange):
	case kind == "query" && e.Sets():
		r.addAt(onChange, fmt.Sprintf("is %s, and a change does not show the new result of a query", e.OnChange), "write refresh: the service loads the result again, whether it was cached or not; or invalidate")
	case kind == "depends_on" && e.OnChange != Invalidate:
		r.addAt(onChange, fmt.Sprintf("is %s, and only the application knows what a value is made of", e.OnChange), "write invalidate, or a query: the service loads its result")
	}
	if e.CacheAbsent && e.Rows == "many" {
		r.addAt(join(path, "cache_absent"), "has no meaning with rows: many: where there are no rows, [] is cached", "take it out")
	}
	for i := range e.DependsOn {
		if e.DependsOn[i].Sweep && !e.AllowSweep {
			r.addAt(e.DependencyPath(i, "sweep"), "drops every key of the entry with every change of the table", "write allow_sweep: true beside depends_on, if that is meant")
		}
	}
}

// newDependency begins one. It is not ok if the name is none of a table, or is there
// already.
func (r *reader) newDependency(path, name string, key ast.MapKeyNode, e *Entry) (ok bool) {
	where := r.document.locate(key.GetToken(), name)
	schema, table, f := parseTable(name)
	if f != nil {
		r.add(where.at(f.offset), path, f.text, f.mend)
		return false
	}
	for _, before := range e.DependsOn {
		if before.Schema == schema && before.Table == table {
			r.add(where.at(0), path, fmt.Sprintf("is there already, as %s", before.Name), "keep one of them; a lookup may be the UNION of several")
			return false
		}
	}
	e.DependsOn = append(e.DependsOn, Dependency{Name: name, Schema: schema, Table: table})
	return true
}

// leads reports rows that lead to keys in more than one way.
func (r *reader) leads(path string, d *Dependency) {
	var ways []string
	for _, way := range []string{"key", "lookup", "sweep"} {
		if r.has(join(path, way)) && (way != "sweep" || d.Sweep) {
			ways = append(ways, way)
		}
	}
	if len(ways) > 1 {
		r.addAt(join(path, ways[1]), fmt.Sprintf("stands beside %s: a row leads to keys in one way", ways[0]), "take one of them out; a lookup may be the UNION of several")
	}
}

// unwritten reports what is said of the values of an entry that writes none.
func (r *reader) unwritten(path string, e *Entry) {
	onChange := join(path, "on_change")
	if e.OnChange != Invalidate || slices.ContainsFunc(r.found, func(f finding) bool { return f.path == onChange }) {
		return
	}
	mend := "write on_change: update, warm or refresh; or take this out"
	switch {
	case r.has(join(path, "query")):
		mend = "write on_change: refresh; or take this out"
	case r.has(join(path, "depends_on")):
		mend = "take it out" // the service can write none
	}
	for i := range settings {
		if !settings[i].written {
			continue
		}
		at := join(path, settings[i].name())
		said := slices.ContainsFunc(r.found, func(f finding) bool { return f.path == at })
		if r.has(at) && !said {
			r.addAt(at, "is about what the service writes, and this entry only invalidates: its values are the application's own", mend)
		}
	}
}

// unknown reports a key that s does not have.
func (r *reader) unknown(at spot, full, name string, s *setting, value ast.Node) {
	var names []string
	for _, c := range s.children() {
		names = append(names, c.name())
	}
	mend := "the keys here are " + strings.Join(names, ", ")
	if near := nearest(name, names); near != "" {
		mend = fmt.Sprintf("did you mean %s? The keys here are %s", near, strings.Join(names, ", "))
	}
	// A password under a misspelt key is still a password.
	if value != nil {
		text, isText := scalar(value)
		if isText && (looksSecret(text) || secretName.MatchString(name)) {
			r.document.hideValue(value, r.document.locate(value.GetToken(), text))
		}
	}
	r.add(at, full, unknownKey, mend)
}

const unknownKey = "unknown key"

// misspelt reports whether an unknown key of the mapping at path was taken for name: that
// it is missing as well need not be said.
func (r *reader) misspelt(path, name string) bool {
	return slices.ContainsFunc(r.found, func(f finding) bool {
		key, ok := strings.CutPrefix(f.path, join(path, ""))
		return ok && f.text == unknownKey && nearest(key, []string{name}) != ""
	})
}

// newEntry is an entry with every default filled in.
func (r *reader) newEntry(name string) *Entry {
	e := &Entry{Name: name}
	for i := range settings {
		if s := &settings[i]; s.inEntry() {
			r.fillDefault(s, e)
		}
	}
	return e
}

func (r *reader) fillDefault(s *setting, e *Entry) {
	if s.initial == "" {
		return
	}
	if f := r.set(s, s.initial, e); f != nil {
		panic(fmt.Sprintf("default of %s: %s %s", s.path, s.initial, f.text))
	}
}

// set stores the text of a value.
func (r *reader) set(s *setting, text string, e *Entry) *fault {
	if s.check != nil {
		var f *fault
		if text, f = s.check(text); f != nil {
			return f
		}
	}
	if len(s.enum) > 0 && !slices.Contains(s.enum, text) {
		return s.notInEnum(text)
	}
	switch at := s.at(r.config, e).(type) {
	case *string:
		if text == "" && s.check == nil {
			return &fault{text: "is empty", mend: s.writeExample()}
		}
		if s.file {
			return r.setFile(at, text)
		}
		*at = text
	case *Secret:
		if text == "" {
			return &fault{text: "is empty", mend: s.writeExample()}
		}
		*at = Secret(text)
	case *URL:
		*at = URL(text)
	case *OnChange:
		*at = OnChange(text)
	case *Lookup:
		*at = Lookup(text)
	case tableName:
		schema, name, f := parseTable(text)
		if f != nil {
			return f
		}
		*at.schema, *at.name = schema, name
	case *[]string:
		switch {
		case text == "":
			return &fault{text: "is empty", mend: s.writeExample()}
		case slices.Contains(*at, text):
			return &fault{text: fmt.Sprintf("%s is there already", quote(text)), mend: "keep one of them"}
		}
		*at = append(*at, text)
	case *bool:
		switch text {
		case "true", "false":
			*at = text == "true"
		default:
			return &fault{text: fmt.Sprintf("%s is neither true nor false", quote(text)), mend: "write true or false"}
		}
	case *int:
		n, f := s.number(text)
		if f != nil {
			return f
		}
		*at = int(n)
	case *time.Duration:
		d, f := s.duration(text)
		if f != nil {
			return f
		}
		*at = d
	default:
		panic(fmt.Sprintf("%s is held by a %T", s.path, at))
	}
	return nil
}

func (s *setting) notInEnum(text string) *fault {
	mend := "write " + oneOf(s.enum)
	if near := nearest(text, s.enum); near != "" {
		mend = fmt.Sprintf("did you mean %s? Write %s", near, oneOf(s.enum))
	}
	return &fault{text: fmt.Sprintf("%s is not known here", quote(text)), mend: mend}
}

func (s *setting) number(text string) (int64, *fault) {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, &fault{text: fmt.Sprintf("%s is no whole number", quote(text)),
			mend: fmt.Sprintf("write a number from %d to %d", s.min, s.max)}
	}
	if err != nil || n < s.min || n > s.max {
		return 0, &fault{text: fmt.Sprintf("%s is out of range", quote(text)),
			mend: fmt.Sprintf("write a number from %d to %d", s.min, s.max)}
	}
	return n, nil
}

func (s *setting) duration(text string) (time.Duration, *fault) {
	d, err := time.ParseDuration(text)
	if err != nil {
		f := &fault{text: fmt.Sprintf("%s is no duration", quote(text)), mend: "write a number and ms, s, m or h, like " + s.initial}
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			f.text = fmt.Sprintf("%s has no unit", quote(text))
			f.mend = fmt.Sprintf("write %ss, if seconds are meant, or ms, m or h", text)
		}
		return 0, f
	}
	if int64(d) < s.min || int64(d) > s.max {
		return 0, &fault{text: fmt.Sprintf("%s is out of range", quote(text)),
			mend: fmt.Sprintf("write %s to %s", brief(time.Duration(s.min)), brief(time.Duration(s.max)))}
	}
	return d, nil
}

// brief prints a duration without units that are zero: 10m, not 10m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (r *reader) setFile(at *string, path string) *fault {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.directory, path)
	}
	const mend = "write the path of a file that this user may read; it is relative to the configuration file"
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		// A pipe or a device could keep us waiting for ever.
		return &fault{text: fmt.Sprintf("%s is no regular file", path), mend: mend}
	}
	if err == nil {
		var file *os.File
		if file, err = os.Open(path); err == nil {
			file.Close()
		}
	}
	if err != nil {
		return &fault{text: err.Error(), mend: mend}
	}
	*at = path
	return nil
}

// agree checks what concerns several settings, and reads the password files.
func (r *reader) agree() {
	c := r.config
	r.passwordFile("database.password_file", c.Database.PasswordFile, c.Database.URL, &c.Database.Password)
	r.agreePassword("redis", c.Redis.URL, &c.Redis.Password, c.Redis.PasswordFile)
	r.pairOfFiles("database.tls")
	r.pairOfFiles("redis.tls")
	if c.Redis.TLS != (TLS{}) && strings.HasPrefix(string(c.Redis.URL), "redis://") {
		r.addAt("redis.tls", "the URL says to connect without TLS", "write rediss:// in redis.url, or take tls out")
	}
	for _, p := range c.Database.parameters() {
		if p.path != "" && hasParameter(string(c.Database.URL), p.name) {
			r.addAt(p.path, fmt.Sprintf("database.url has %s too", p.name), "keep one of them")
		}
	}
	r.agreeKafka()
}

// has reports whether the file has the key at path.
func (r *reader) has(path string) bool {
	_, ok := r.document.places[path]
	return ok
}

// hasBelow reports whether the file has a key in the mapping at path.
func (r *reader) hasBelow(path string) bool {
	for p := range r.document.places {
		if strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

// agreePassword wants one password of the mapping at path: written there, in a
// file, or in the URL.
func (r *reader) agreePassword(path string, url URL, password *Secret, file string) {
	if *password != "" && hasPassword(url) {
		r.addAt(join(path, "password"), path+".url has a password too", "keep one of them")
	}
	if *password != "" && file != "" {
		r.addAt(join(path, "password_file"), "there is a password already", "keep password or password_file")
		return
	}
	r.passwordFile(join(path, "password_file"), file, url, password)
}

func (r *reader) passwordFile(path, file string, url URL, password *Secret) {
	if file == "" {
		return
	}
	if hasPassword(url) {
		r.addAt(path, "the URL has a password too", "keep one of them")
		return
	}
	text, err := readPassword(file)
	switch {
	case err != nil:
		r.addAt(path, err.Error(), "")
	case text == "":
		r.addAt(path, file+" is empty", "write the password into it")
	default:
		*password = Secret(text)
	}
}

func readPassword(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > passwordSizeMax {
		return "", fmt.Errorf("%s is larger than %d bytes", path, passwordSizeMax)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if !utf8.ValidString(password) || strings.ContainsRune(password, 0) {
		return "", fmt.Errorf("%s is no text", path)
	}
	return password, nil
}

// pairOfFiles goes by what is written: a file that cannot be read is given all
// the same, and its problem is told already.
func (r *reader) pairOfFiles(path string) {
	given, missing := "cert_file", "key_file"
	hasCert, hasKey := r.has(join(path, given)), r.has(join(path, missing))
	if hasCert == hasKey {
		return
	}
	if hasKey {
		given, missing = missing, given
	}
	r.addAt(join(path, given), "needs "+missing, "write both, or neither")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// element is the path of one value of the list at path.
func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// isSwitch reports whether a mapping is on with the mere key of it: its short
// value is true or false.
func (s *setting) isSwitch() bool {
	if s.short == "" {
		return false
	}
	_, ok := s.child(s.short).at(new(Config), new(Entry)).(*bool)
	return ok
}

// inEntry reports whether the setting belongs to each entry.
func (s *setting) inEntry() bool { return strings.HasPrefix(s.path, "entries.*.") }

// writeExample says how the setting is written.
func (s *setting) writeExample() string {
	if s.at == nil && s.example == "" {
		var names []string
		for _, c := range s.children() {
			names = append(names, c.name())
		}
		if s.path == "" || s.path == "entries.*" {
			return "the keys here are " + strings.Join(names, ", ")
		}
		return fmt.Sprintf("write %s with its keys indented below: %s", s.name(), strings.Join(names, ", "))
	}
	example := s.example
	if example == "" {
		example = s.initial
	}
	return fmt.Sprintf("write %s: %s", s.name(), example)
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
