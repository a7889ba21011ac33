package debezium

import "context"

// tombstone reads the key of a message without a value.
func (d *Decoder) tombstone(ctx context.Context, key []byte, e *Event) error {
	e.Kind = Tombstone
	_, err := d.keyOf(ctx, key)
	return err
}
