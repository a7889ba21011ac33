package debezium

import "github.com/unstale/unstale/internal/change"

// takeArray reads an array.
func (d *Decoder) takeArray(s *step, b []byte, i int, v *change.Value, depth int) int {
	return d.skipBlocks(s, b, i, depth)
}

// takeMap reads a map of texts.
func (d *Decoder) takeMap(s *step, b []byte, i int, v *change.Value, depth int) int {
	return d.skipBlocks(s, b, i, depth)
}
