package value

import "bytes"

// dimensionsMax is PostgreSQL's MAXDIM.
const dimensionsMax = 6

// array appends an array as array_out writes it: {{1,NULL},{"a b",2}}, with the
// bounds [0:1][1:2]= before it if they do not begin at one. The bounds are not
// in JSON.
func (p *Program) array(dst []byte, n *node, s []byte) (out []byte, reason string) {
	if len(s) > 0 && s[0] == '[' {
		_, s, _ = bytes.Cut(s, []byte{'='})
	}
	if string(s) == "{}" {
		return append(dst, "[]"...), ""
	}
	open := 0 // braces
	for i := 0; i < len(s); {
		// Here an element or another dimension begins.
		if s[i] == '{' {
			if open++; open > dimensionsMax {
				return dst, reasonMalformed
			}
			dst = append(dst, '[')
			i++
			continue
		}
		if open == 0 {
			return dst, reasonMalformed
		}
		mark := len(p.scratch)
		element, quoted, next := p.element(s, i, n.delimiter, '}')
		switch {
		case next == 0:
			return dst, reasonMalformed
		case !quoted && string(element) == "NULL":
			dst = append(dst, "null"...)
		default:
			if dst, reason = p.json(dst, n.element, element); reason != "" {
				return dst, reason
			}
		}
		p.scratch = p.scratch[:mark]
		i = next
		for i < len(s) && s[i] == '}' {
			open--
			dst = append(dst, ']')
			if i++; open == 0 {
				if i < len(s) {
					return dst, reasonMalformed
				}
				return dst, ""
			}
		}
		if i == len(s) || s[i] != n.delimiter {
			break
		}
		dst = append(dst, ',')
		i++
	}
	return dst, reasonMalformed
}

// vector appends an int2vector or oidvector: 1 2 3.
func (p *Program) vector(dst []byte, n *node, s []byte) (out []byte, reason string) {
	dst = append(dst, '[')
	for i := 0; len(s) > 0; i++ {
		var element []byte
		element, s, _ = bytes.Cut(s, []byte{' '})
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, reason = p.json(dst, n.element, element); reason != "" {
			return dst, reason
		}
	}
	return append(dst, ']'), ""
}

// composite appends a row as record_out writes it: (1,"a ""b""",), where
// nothing is NULL.
func (p *Program) composite(dst []byte, n *node, s []byte) (out []byte, reason string) {
	if len(s) < 2 || s[0] != '(' || s[len(s)-1] != ')' {
		return dst, reasonMalformed
	}
	dst = append(dst, '{')
	i := 1
	for k := range n.fields {
		f := &n.fields[k]
		if k > 0 {
			if s[i] != ',' {
				return dst, reasonMalformed
			}
			i++
		}
		dst = append(dst, f.prefix...)
		if s[i] == ',' || s[i] == ')' {
			dst = append(dst, "null"...)
			continue
		}
		mark := len(p.scratch)
		value, _, next := p.element(s, i, ',', ')')
		if next == 0 {
			return dst, reasonMalformed
		}
		if dst, reason = p.json(dst, f.node, value); reason != "" {
			return dst, reason
		}
		p.scratch = p.scratch[:mark]
		i = next
	}
	if i != len(s)-1 {
		return dst, reasonMalformed
	}
	return append(dst, '}'), ""
}

// hstore appends "a"=>"1", "b"=>NULL as hstore_to_json does, which puts spaces.
func (p *Program) hstore(dst, s []byte) (out []byte, reason string) {
	dst = append(dst, '{')
	for i := 0; i < len(s); {
		if i > 0 {
			if !bytes.HasPrefix(s[i:], []byte(", ")) {
				return dst, reasonMalformed
			}
			dst = append(dst, ", "...)
			i += 2
		}
		mark := len(p.scratch)
		key, next := p.quoted(s, i, false)
		if next == 0 || !bytes.HasPrefix(s[next:], []byte("=>")) {
			return dst, reasonMalformed
		}
		dst = append(appendString(dst, key), ": "...)
		i = next + 2
		if bytes.HasPrefix(s[i:], []byte("NULL")) {
			dst = append(dst, "null"...)
			i += 4
		} else {
			value, next := p.quoted(s, i, false)
			if next == 0 {
				return dst, reasonMalformed
			}
			dst = appendString(dst, value)
			i = next
		}
		p.scratch = p.scratch[:mark]
	}
	return append(dst, '}'), ""
}

// element reads the element of an array or composite that begins at s[i]. What
// it returns is a part of s, or lies on top of the scratch. next is where
// delimiter or end stands, or zero if the element is malformed.
func (p *Program) element(s []byte, i int, delimiter, end byte) (element []byte, quoted bool, next int) {
	if s[i] == '"' {
		element, next = p.quoted(s, i, end == ')')
		if next == len(s) || next > 0 && s[next] != delimiter && s[next] != end {
			next = 0
		}
		return element, true, next
	}
	for j := i; j < len(s); j++ {
		switch c := s[j]; c {
		case delimiter, end:
			if j == i {
				return nil, false, 0
			}
			return s[i:j], false, j
		case '"', '\\', '{', '(':
			if c == '{' && end == ')' || c == '(' && end == '}' {
				continue // special to the other only
			}
			return nil, false, 0
		}
	}
	return nil, false, 0
}

// quoted reads the quoted text that begins at s[i]. A backslash stands before
// what is to be taken as it is; in a composite a doubled quote is a quote.
func (p *Program) quoted(s []byte, i int, doubled bool) (text []byte, next int) {
	if i >= len(s) || s[i] != '"' {
		return nil, 0
	}
	i++
	mark, from := len(p.scratch), i
	for ; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i+1 == len(s) {
				return nil, 0
			}
		case '"':
			if !doubled || i+1 == len(s) || s[i+1] != '"' {
				if len(p.scratch) == mark {
					return s[from:i:i], i + 1
				}
				p.scratch = append(p.scratch, s[from:i]...)
				return p.scratch[mark:], i + 1
			}
		default:
			continue
		}
		p.scratch = append(p.scratch, s[from:i]...)
		from = i + 1
		i++
	}
	return nil, 0
}
