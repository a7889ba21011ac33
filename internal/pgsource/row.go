package pgsource

import (
	"encoding/binary"

	"github.com/unstale/unstale/internal/change"
)

// Why a row could not be read: change.Change.Reason, for a log.
const (
	reasonShort   = "the row is cut short"
	reasonColumns = "the row has another number of columns than its relation"
	reasonBinary  = "a wanted column is in binary format"
	reasonKind    = "a column is of an unknown kind"
	reasonParts   = "the row's parts are of an unknown kind"
)

// The parts of a row message: which version of the row follows.
const (
	partKey = 'K' // the replica identity of the old row
	partOld = 'O' // the whole old row
	partNew = 'N'
)

// The kinds of a column in a row.
const (
	columnNull      = 'n'
	columnUnchanged = 'u'
	columnText      = 't'
	columnBinary    = 'b'
	// columnLong is ours: a compacted row has it for a text that is too long.
	columnLong = 'l'
)

// A part is one version of a row: its columns, and what they mean.
type part struct {
	rel       *relation
	kind      byte
	compacted bool
	values    []change.Value // one a wanted column
}

// null is what a column that the log calls null is. The old key has nulls for
// the columns that do not identify the row: they are not known.
func (p *part) null(column int) change.ValueState {
	if p.kind == partKey && !p.rel.Columns[column].Identifies {
		return change.Missing
	}
	return change.Null
}

// rowKind says how much of the row the part tells.
func (p *part) rowKind() change.RowKind {
	if p.kind == partKey {
		return change.IdentityOnly
	}
	return change.Whole
}

// readColumns reads the columns of a part, as a row message has them, and
// returns what stands behind them. It reads the wanted columns, steps over the
// others, and where nothing follows (last) stops at the last wanted one.
// A reason is returned if they cannot be read.
func (p *part) readColumns(b []byte, last bool, valueBytesMax int) (rest []byte, reason string) {
	rel := p.rel
	if len(b) < 2 {
		return nil, reasonShort
	}
	if int(binary.BigEndian.Uint16(b)) != len(rel.slots) {
		return nil, reasonColumns
	}
	b = b[2:]
	for column, slot := range rel.slots {
		if last && column > rel.lastWanted {
			break
		}
		if len(b) == 0 {
			return nil, reasonShort
		}
		kind := b[0]
		b = b[1:]
		var text []byte
		switch kind {
		case columnNull, columnUnchanged:
		case columnText, columnBinary:
			if len(b) < 4 {
				return nil, reasonShort
			}
			n := uint64(binary.BigEndian.Uint32(b))
			if n > uint64(len(b)-4) {
				return nil, reasonShort
			}
			text, b = b[4:4+n:4+n], b[4+n:]
		case columnLong:
			if !p.compacted {
				return nil, reasonKind
			}
		default:
			return nil, reasonKind
		}
		if slot == 0 {
			continue
		}
		value := &p.values[slot-1]
		switch kind {
		case columnText:
			value.State, value.Text = change.Text, text
			if len(text) > valueBytesMax {
				value.State, value.Text = change.Long, nil
			}
		case columnLong:
			value.State, value.Text = change.Long, nil
		case columnNull:
			value.State, value.Text = p.null(column), nil
		case columnUnchanged:
			value.State, value.Text = change.Unchanged, nil
		default:
			return nil, reasonBinary
		}
	}
	return b, ""
}

// keepUnchanged takes the values that the update did not touch, and that the
// log therefore leaves out of the new row, from the old one. They are there
// under REPLICA IDENTITY FULL, and where the column is part of the identity.
func keepUnchanged(updated, old []change.Value) {
	for i := range updated {
		if updated[i].State == change.Unchanged && (old[i].State == change.Text || old[i].State == change.Long) {
			updated[i] = old[i]
		}
	}
}
