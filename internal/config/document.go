package config

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// A document is the text of a configuration file and where in it each value
// stands, so that a problem found later still finds its place.
type document struct {
	file   string
	lines  []string
	parsed bool
	places map[string]place // by path
	hide   map[int][]span   // secrets, by line from 0
}

// A spot is a byte of a line, both from 0.
type spot struct{ line, offset int }

// A place is where a value stands.
type place struct {
	start spot
	// from has the spot of each byte of the value, its end included. It is nil
	// where the value does not stand in one line, or is a mapping.
	from []spot
}

func newDocument(file, text string) *document {
	return &document{
		file:   file,
		lines:  strings.Split(text, "\n"),
		places: make(map[string]place),
		hide:   make(map[int][]span),
	}
}

// at is the spot of the byte at offset of the value.
func (p place) at(offset int) spot {
	if p.from == nil {
		return p.start
	}
	return p.from[min(max(offset, 0), len(p.from)-1)]
}

// find is the place of the value at path, or of the nearest list or mapping
// around it.
func (d *document) find(path string) place {
	for {
		if p, ok := d.places[path]; ok {
			return p
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return place{}
		}
		path = path[:i]
	}
}

// problem describes something wrong at a spot.
func (d *document) problem(at spot, path, text, mend string) Problem {
	line := d.lines[at.line]
	offset := min(at.offset, len(line))
	p := Problem{
		File:   d.file,
		Line:   at.line + 1,
		Column: utf8.RuneCountInString(line[:offset]) + 1,
		Path:   path,
		Text:   text,
		Mend:   mend,
	}
	spans := append(passwordSpans(line), d.hide[at.line]...)
	if !d.parsed {
		// What is no YAML does not tell where a secret ends.
		for _, m := range passwordKeyed.FindAllStringSubmatchIndex(line, -1) {
			spans = append(spans, span{m[2], m[3]})
		}
	}
	var moved int
	p.excerpt, moved = hideSpans(line, spans, offset)
	p.caret = utf8.RuneCountInString(p.excerpt[:moved])
	return p
}

// hideValue keeps the value of the node out of every excerpt.
func (d *document) hideValue(node ast.Node, p place) {
	line := p.start.line
	if p.from != nil && p.from[len(p.from)-1].line == line {
		end := p.from[len(p.from)-1].offset
		if quote := d.lines[line][p.start.offset]; quote == '\'' || quote == '"' {
			end++
		}
		d.hide[line] = append(d.hide[line], span{p.start.offset, end})
		return
	}
	// It runs over several lines.
	origin := node.GetToken().Origin
	if block, isBlock := node.(*ast.LiteralNode); isBlock {
		origin = "\n" + block.Value.GetToken().Origin
	}
	last := min(line+strings.Count(strings.TrimRight(origin, " \n"), "\n"), len(d.lines)-1)
	d.hide[line] = append(d.hide[line], span{min(p.start.offset, len(d.lines[line])), len(d.lines[line])})
	for line++; line <= last; line++ {
		d.hide[line] = append(d.hide[line], span{0, len(d.lines[line])})
	}
}

// spotOf translates the parser's position, which counts characters from 1.
func (d *document) spotOf(tk *token.Token) spot {
	if tk == nil || tk.Position == nil {
		return spot{}
	}
	line := min(max(tk.Position.Line-1, 0), len(d.lines)-1)
	offset, text := 0, d.lines[line]
	for range tk.Position.Column - 1 {
		_, size := utf8.DecodeRuneInString(text[offset:])
		offset += size
	}
	return spot{line, offset}
}

// locate finds where each byte of a value stands in the text.
func (d *document) locate(tk *token.Token, value string) place {
	start := d.spotOf(tk)
	return place{start: start, from: d.trace(start, value)}
}

// trace reads the scalar at start as YAML does and notes where each byte of
// its value comes from. It gives nil if it does not come to the same value:
// then the scalar runs over several lines.
func (d *document) trace(start spot, value string) []spot {
	text := d.lines[start.line]
	i := start.offset
	if i >= len(text) {
		return nil
	}
	if text[i] == '|' {
		return d.traceLiteral(start.line+1, value)
	}
	quote := text[i]
	if quote == '\'' || quote == '"' {
		i++
	} else {
		quote = 0
	}
	from := make([]spot, 0, len(value)+1)
	for rest := value; rest != ""; {
		if i >= len(text) {
			return nil
		}
		piece, size := text[i:i+1], 1
		switch {
		case quote == '\'' && strings.HasPrefix(text[i:], "''"):
			size = 2
		case quote == '"' && text[i] == '\\':
			if piece, size = unescape(text[i:]); size == 0 {
				return nil
			}
		}
		if !strings.HasPrefix(rest, piece) {
			return nil
		}
		rest = rest[len(piece):]
		from = append(from, slices.Repeat([]spot{{start.line, i}}, len(piece))...)
		i += size
	}
	if quote != 0 && (i >= len(text) || text[i] != quote) {
		return nil
	}
	return append(from, spot{start.line, i})
}

// unescape reads one escape of a double-quoted scalar and tells how many bytes
// it took; 0 if it is not one.
func unescape(text string) (piece string, size int) {
	if len(text) < 2 {
		return "", 0
	}
	const names, values = `0abtnvfre "/\N_LP`, "\x00\a\b\t\n\v\f\r\x1b \"/\\\u0085\u00a0\u2028\u2029"
	if i := strings.IndexByte(names, text[1]); i >= 0 {
		return string([]rune(values)[i]), 2
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[text[1]]
	if digits == 0 || len(text) < 2+digits {
		return "", 0
	}
	n, err := strconv.ParseUint(text[2:2+digits], 16, 32)
	if err != nil {
		return "", 0
	}
	return string(rune(n)), 2 + digits
}

// traceLiteral is trace for a literal block, whose first line is line.
func (d *document) traceLiteral(line int, value string) []spot {
	var from []spot
	indent := -1
	for rest := value; rest != ""; line++ {
		if line >= len(d.lines) {
			return nil
		}
		text := strings.TrimSuffix(d.lines[line], "\r")
		if indent < 0 && strings.TrimSpace(text) != "" {
			indent = len(text) - len(strings.TrimLeft(text, " "))
		}
		content := text[min(max(indent, 0), len(text)):]
		if !strings.HasPrefix(rest, content) {
			return nil
		}
		for i := range len(content) {
			from = append(from, spot{line, len(text) - len(content) + i})
		}
		if rest = rest[len(content):]; rest != "" {
			if rest[0] != '\n' {
				return nil
			}
			from, rest = append(from, spot{line, len(text)}), rest[1:]
		}
	}
	return append(from, spot{line, 0})
}
